"""Molecules drawn by RDKit with coloured atoms and bonds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from multimodal.core.parts import Changes
from multimodal.media.shading import Shading

if TYPE_CHECKING:
    from rdkit.Chem import Mol

WIDTH, HEIGHT = 480, 320  # pixels


def atom_names(molecule: Mol) -> list[str]:
    """Return the name of each atom, its element and its number in the SMILES, from 1.

    Examples:
        >>> from multimodal_encoders.molecule.smiles import parse
        >>> atom_names(parse("CCO"))
        ['C1', 'C2', 'O3']
    """
    return [f"{atom.GetSymbol()}{atom.GetIdx() + 1}" for atom in molecule.GetAtoms()]


def highlight(molecule: Mol, pairs: np.ndarray, of_atoms: Changes, of_bonds: Changes) -> str:
    """Draw a molecule as SVG whose lines and letters have the colour of the page's text.

    Args:
        molecule: the molecule.
        pairs: ``(bonds, 2)``, the atoms of each bond.
        of_atoms, of_bonds: how much of the score each is worth; of those that are coloured, see ``Shading``.

    Examples:
        >>> from multimodal_encoders.molecule.smiles import parse
        >>> drawing = highlight(parse("CCO"), np.array([[0, 1], [1, 2]]), [0.0, 0.1, 0.4], [0.0, 0.2])
        >>> drawing.startswith("<svg"), "currentColor" in drawing
        (True, True)
    """
    from rdkit import rdBase
    from rdkit.Chem.Draw.rdMolDraw2D import MolDraw2DSVG

    shading = Shading.of([*of_atoms, *of_bonds])
    atoms = {number: _rgba(shading, worth) for number, worth in enumerate(of_atoms) if shading.opacity(worth) > 0}
    bonds = {
        molecule.GetBondBetweenAtoms(a, b).GetIdx(): _rgba(shading, worth)
        for (a, b), worth in zip(pairs.tolist(), of_bonds, strict=True)
        if shading.opacity(worth) > 0
    }
    canvas = MolDraw2DSVG(WIDTH, HEIGHT)
    options = canvas.drawOptions()
    options.useBWAtomPalette()
    options.clearBackground = False
    options.addAtomIndices = False
    options.fillHighlights = True
    options.continuousHighlight = True
    with rdBase.BlockLogs():
        canvas.DrawMolecule(
            molecule,
            highlightAtoms=list(atoms),
            highlightAtomColors=atoms,
            highlightAtomRadii=dict.fromkeys(atoms, 0.4),
            highlightBonds=list(bonds),
            highlightBondColors=bonds,
        )
        canvas.FinishDrawing()
    drawing = canvas.GetDrawingText()
    drawing = drawing[drawing.index("<svg") :].replace("#000000", "currentColor").rstrip()
    return drawing.replace("<svg ", '<svg role="img" aria-label="The molecule, with its parts coloured" ', 1)


def _rgba(shading: Shading, worth: float) -> tuple[float, float, float, float]:
    colour = shading.colour(worth)
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return red, green, blue, shading.opacity(worth)
