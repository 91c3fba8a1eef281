"""Counts of a molecule's fragments, groups and atom pairs by RDKit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from multimodal.core.encoder import Inputs
from multimodal.core.parts import Parts
from multimodal_encoders.molecule.smiles import morgan_generator, parse
from multimodal_encoders.molecule.smiles_processor import SmilesProcessor, molecule_parts

if TYPE_CHECKING:
    from rdkit.Chem import Mol

Fragments = Literal["morgan", "stereo", "features", "pairs", "torsions", "keys", "groups"]
Counter = Callable[["Mol"], np.ndarray]

# positions that each kind is hashed to; of keys and groups, their number in RDKit
SIZES: dict[Fragments, int] = {
    "morgan": 2048,
    "stereo": 2048,
    "features": 1024,
    "pairs": 2048,
    "torsions": 2048,
    "keys": 167,
    "groups": 85,
}


GROUP_NAMES = (
    "Al_COO Al_OH Al_OH_noTert ArN Ar_COO Ar_N Ar_NH Ar_OH COO COO2 C_O C_O_noCOO C_S HOCCN Imine NH0 NH1 "
    "NH2 N_O Ndealkylation1 Ndealkylation2 Nhpyrrole SH aldehyde alkyl_carbamate alkyl_halide "
    "allylic_oxid amide amidine aniline aryl_methyl azide azo barbitur benzene benzodiazepine bicyclic "
    "diazo dihydropyridine epoxide ester ether furan guanido halogen hdrzine hdrzone imidazole imide "
    "isocyan isothiocyan ketone ketone_Topliss lactam lactone methoxy morpholine nitrile nitro nitro_arom "
    "nitro_arom_nonortho nitroso oxazole oxime para_hydroxylation phenol phenol_noOrthoHbond phos_acid "
    "phos_ester piperdine piperzine priamide prisulfonamd pyridine quatN sulfide sulfonamd sulfone "
    "term_acetylene tetrazole thiazole thiocyan thiophene unbrch_alkane urea"
)
# functions of rdkit.Chem.Fragments; another release may have more
GROUPS = [f"fr_{name}" for name in GROUP_NAMES.split()]


class FragmentProcessor(SmilesProcessor):
    """Turns SMILES strings into counts of what a molecule contains, by RDKit.

    - ``morgan``: the environments of the atoms up to two bonds (Rogers and Hahn 2010); ``stereo``: the same with
      the arrangement around centres and double bonds; ``features``: the same, of atoms distinguished by what they can do
      (donate a hydrogen, be charged, ...) instead of by their element;
    - ``pairs``: two atoms and the bonds between them (Carhart et al. 1985); ``torsions``: four atoms in a row (Nilakantan et
      al. 1987);
    - ``keys``: the 166 MACCS keys (Durant et al. 2002), 0 or 1; ``groups``: 85 functional groups and rings.

    Args:
        kinds: which of these, one after the other.

    Examples:
        >>> counts = FragmentProcessor(["groups"])("CC(=O)O")  # acetic acid
        >>> counts.shape, int(counts[GROUPS.index("fr_COO")])
        ((85,), 1)
    """

    def __init__(self, kinds: Sequence[Fragments]) -> None:
        self.kinds = list(kinds)

    def __call__(self, value: Any) -> np.ndarray:
        """``(positions,)`` uint8, at most 255."""
        return self._count(parse(value))

    def _count(self, molecule: Mol) -> np.ndarray:
        counts = np.concatenate([self._counters[kind](molecule) for kind in self.kinds])
        return np.minimum(counts, 255).astype(np.uint8)

    @cached_property
    def _counters(self) -> dict[Fragments, Counter]:
        return {kind: _counter(kind) for kind in self.kinds}

    def __getstate__(self) -> dict[str, Any]:  # RDKit's generators cannot be pickled
        return {"kinds": self.kinds}

    def collate(self, items: Sequence[np.ndarray]) -> Inputs:
        """``counts``: ``(n, positions)`` uint8."""
        return {"counts": torch.from_numpy(np.stack(items))}

    def parts(self, value: Any) -> Parts:
        """Return the parts of ``molecule_parts``.

        Without a part, what the molecule no longer contains is not counted, and neither is what only the broken one contains;
        the other atoms keep their hydrogens.
        """
        molecule = parse(value)
        counts = self._count(molecule)
        bonds = np.array([(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in molecule.GetBonds()], np.int64)
        ends = bonds.reshape(-1, 2).T

        def without(atoms: np.ndarray, bonds: np.ndarray) -> np.ndarray:
            left = _broken(molecule, np.flatnonzero(~atoms).tolist(), ends[:, ~bonds].T.tolist())
            return np.minimum(counts, self._count(left))

        return molecule_parts(molecule, ends, without)


def _broken(molecule: Mol, atoms: list[int], bonds: list[list[int]]) -> Mol:
    """Return a molecule without some atoms and bonds; it is not made valid again, and the other atoms keep their hydrogens."""
    from rdkit import Chem

    left = Chem.RWMol(molecule)
    for atom in left.GetAtoms():
        atom.SetNumExplicitHs(atom.GetTotalNumHs())
        atom.SetNoImplicit(True)
    for first, second in bonds:
        left.RemoveBond(first, second)
    for atom in sorted(atoms, reverse=True):  # those after it get other numbers
        left.RemoveAtom(atom)
    left.UpdatePropertyCache(strict=False)
    Chem.GetSymmSSSR(left)
    return left.GetMol()


def _counter(kind: Fragments) -> Counter:
    from rdkit.Chem import Fragments as Groups
    from rdkit.Chem import rdFingerprintGenerator
    from rdkit.Chem.rdMolDescriptors import GetMACCSKeysFingerprint

    if kind == "keys":
        return lambda molecule: (
            np.frombuffer(GetMACCSKeysFingerprint(molecule).ToBitString().encode(), np.uint8) - ord("0")
        )
    if kind == "groups":
        functions = [getattr(Groups, name) for name in GROUPS]
        return lambda molecule: np.array([count(molecule) for count in functions])
    size = SIZES[kind]
    if kind == "morgan":
        generator = morgan_generator(size, radius=2)
    elif kind == "stereo":
        generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=size, includeChirality=True)
    elif kind == "features":
        atoms = rdFingerprintGenerator.GetMorganFeatureAtomInvGen()
        generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=size, atomInvariantsGenerator=atoms)
    elif kind == "pairs":
        generator = rdFingerprintGenerator.GetAtomPairGenerator(fpSize=size)
    else:
        generator = rdFingerprintGenerator.GetTopologicalTorsionGenerator(fpSize=size)
    return generator.GetCountFingerprintAsNumPy
