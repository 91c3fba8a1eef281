"""Corruptions of SMILES strings: the same molecule written otherwise, and molecules that differ in little."""

from __future__ import annotations

from typing import Any

import numpy as np

from multimodal.core.encoder import Corruption
from multimodal_encoders.molecule.smiles import parse


def rewrite(value: Any, rng: np.random.Generator) -> str:
    """Return another SMILES of the same molecule, which begins at a random atom.

    Examples:
        >>> from rdkit.Chem import CanonSmiles
        >>> CanonSmiles(rewrite("CC(=O)O", np.random.default_rng(0)))
        'CC(=O)O'
    """
    from rdkit.Chem import MolToSmiles, RenumberAtoms

    molecule = parse(value)
    order = rng.permutation(molecule.GetNumAtoms()).tolist()
    return MolToSmiles(RenumberAtoms(molecule, order), canonical=False)


def drop_end_atom(value: Any, rng: np.random.Generator) -> str:
    """Return the molecule without a random atom that has one neighbour; one without such an atom is rewritten alone.

    Examples:
        >>> drop_end_atom("CO", np.random.default_rng(0)) in ("C", "O")
        True
    """
    from rdkit import rdBase
    from rdkit.Chem import Kekulize, KekulizeException, MolToSmiles, RWMol, SanitizeMol

    molecule = parse(value)
    ends = [a.GetIdx() for a in molecule.GetAtoms() if a.GetDegree() == 1 and not a.GetIsAromatic()]
    for atom in rng.permutation(ends).tolist() if molecule.GetNumAtoms() > 1 else []:
        changed = RWMol(molecule)
        try:
            with rdBase.BlockLogs():
                Kekulize(changed, clearAromaticFlags=True)  # else an aromatic nitrogen gets no hydrogen
                changed.GetAtomWithIdx(atom).GetNeighbors()[0].SetNoImplicit(False)
                changed.RemoveAtom(atom)
                SanitizeMol(changed)
        except (KekulizeException, ValueError):
            continue
        return MolToSmiles(changed)
    return rewrite(value, rng)


MOLECULE_CORRUPTIONS: dict[str, Corruption] = {"written otherwise": rewrite, "without an end atom": drop_end_atom}
