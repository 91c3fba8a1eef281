"""The atoms and bonds that each counted fragment of a molecule has, so that those of a part can be left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rdkit.Chem import Mol


@dataclass(frozen=True)
class Environments:
    """The circular fragments of a molecule (Morgan; Rogers and Hahn 2010), each the atoms within a radius of one.

    Args:
        distances: ``(atoms, atoms)`` whole numbers, in bonds.
        centres, radii, bits: ``(fragments,)`` whole numbers, of each fragment its middle atom, its radius in bonds, and the
            position where it is counted.
        size: the number of positions.

    Examples:
        >>> from multimodal_encoders.molecule.smiles import morgan_generator, parse
        >>> found = Environments.of(parse("CCO"), morgan_generator(64, 1), 64)
        >>> len(found.bits)  # of three atoms, alone and with their neighbours
        6
        >>> int(found.with_any(np.array([True, False, False]), np.zeros((2, 0), int)).sum())  # those that have the first
        3
    """

    distances: np.ndarray
    centres: np.ndarray
    radii: np.ndarray
    bits: np.ndarray
    size: int

    @classmethod
    def of(cls, molecule: Mol, generator: Any | None, size: int) -> Environments:
        """Return the fragments that RDKit counts.

        Args:
            molecule: the molecule.
            generator: RDKit's generator of Morgan fingerprints; None: there are no fragments.
            size: the number of positions.
        """
        from rdkit.Chem import GetDistanceMatrix
        from rdkit.Chem.rdFingerprintGenerator import AdditionalOutput

        rows = np.zeros((0, 3), dtype=np.int64)
        if generator is not None:
            output = AdditionalOutput()
            output.AllocateBitInfoMap()
            generator.GetCountFingerprint(molecule, additionalOutput=output)
            found = [(atom, radius, bit) for bit, places in output.GetBitInfoMap().items() for atom, radius in places]
            rows = np.array(found, dtype=np.int64).reshape(-1, 3)
        return cls(GetDistanceMatrix(molecule), rows[:, 0], rows[:, 1], rows[:, 2], size)

    def with_any(self, atoms: np.ndarray, bonds: np.ndarray) -> np.ndarray:
        """Return which fragments contain any of some atoms and bonds, ``(fragments,)`` bool.

        Args:
            atoms: ``(atoms,)`` bool.
            bonds: ``(2, bonds)``, the atoms that each bond joins.
        """
        reach = self.distances[self.centres] <= self.radii[:, None]
        inner = self.distances[self.centres] <= self.radii[:, None] - 1
        of_atoms = (reach & atoms).any(axis=1)
        of_bonds = (inner[:, bonds[0]] | inner[:, bonds[1]]).any(axis=1)
        return np.logical_or(of_atoms, of_bonds)

    def counts(self, chosen: np.ndarray) -> np.ndarray:
        """Count chosen fragments ``(fragments,)`` bool at each position, ``(size,)`` uint8, at most 255."""
        return np.minimum(np.bincount(self.bits[chosen], minlength=self.size), 255).astype(np.uint8)
