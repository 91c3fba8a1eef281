"""What the processors of SMILES strings share: corruptions, examples, drawings, and how a molecule comes apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from multimodal.core.encoder import Corruption, Processor
from multimodal.core.parts import Parts
from multimodal.media.parts.graph import GraphParts
from multimodal_encoders.molecule.corruptions import MOLECULE_CORRUPTIONS
from multimodal_encoders.molecule.highlight import atom_names, highlight
from multimodal_encoders.molecule.smiles import draw_svg, morgan_counts

if TYPE_CHECKING:
    from rdkit.Chem import Mol


class SmilesProcessor(Processor):
    """Base of processors whose raw values are SMILES strings.

    Examples:
        >>> from multimodal_encoders.molecule.fragments import FragmentProcessor
        >>> processor = FragmentProcessor(["groups"])
        >>> isinstance(processor, SmilesProcessor), processor.examples()[0]
        (True, 'CC(=O)O')
    """

    def corruptions(self) -> Mapping[str, Corruption]:
        return MOLECULE_CORRUPTIONS

    def examples(self) -> list[Any]:
        return ["CC(=O)O", "CC(=O)Oc1ccccc1C(=O)O"]

    def linear_features(self) -> Any:
        """Morgan counts (radius 2, 2,048 places), as their log1p."""
        return morgan_counts()

    def drawing(self, value: Any) -> str:
        return draw_svg(value)


def molecule_parts(molecule: Mol, ends: np.ndarray, without: Callable[[np.ndarray, np.ndarray], Any]) -> Parts:
    """Return the atoms of a molecule, each with its bonds, and the bonds, drawn by RDKit.

    Args:
        molecule: the molecule.
        ends: ``(2, edges)``, the atoms that each bond joins, in one direction or in both.
        without: from which atoms are kept ``(atoms,)`` bool, and which edges ``(edges,)`` bool, to an item.
    """
    graph = GraphParts(ends, molecule.GetNumAtoms(), without, "atom", "bond", atom_names(molecule))
    return replace(graph, draw=partial(highlight, molecule, graph.pairs)).parts()
