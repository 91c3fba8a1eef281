"""A molecule without an atom or bond has the fragments that RDKit's own environments do not contain it in."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rdkit")
from multimodal_encoders.molecule.corruptions import MOLECULE_CORRUPTIONS, drop_end_atom, rewrite
from multimodal_encoders.molecule.environments import Environments
from multimodal_encoders.molecule.smiles import morgan_generator, parse
from rdkit.Chem import CanonSmiles, FindAtomEnvironmentOfRadiusN, MolFromSmiles
from rdkit.Chem.rdFingerprintGenerator import AdditionalOutput

from multimodal.core.registry import create

SMILES = ["CC(=O)Oc1ccccc1C(=O)O", "C", "[Na+].[Cl-]", "C1CC1C#N", "CN1C=NC2=C1C(=O)N(C(=O)N2C)C"]
BITS, RADIUS = 512, 3


def reference(smiles: str, atom: int | None, bond: tuple[int, int] | None) -> np.ndarray:
    """Count the fragments without an atom, or without a bond, by the atoms and bonds that RDKit lists for each."""
    molecule = MolFromSmiles(smiles)
    output = AdditionalOutput()
    output.AllocateBitInfoMap()
    morgan_generator(BITS, RADIUS).GetCountFingerprint(molecule, additionalOutput=output)
    counts = np.zeros(BITS, dtype=np.int64)
    for bit, places in output.GetBitInfoMap().items():
        for centre, radius in places:
            bonds = FindAtomEnvironmentOfRadiusN(molecule, radius, centre) if radius else []
            ends = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in map(molecule.GetBondWithIdx, bonds)]
            if atom in {centre, *(a for pair in ends for a in pair)}:
                continue
            counts[bit] += bond is None or tuple(sorted(bond)) not in {tuple(sorted(pair)) for pair in ends}
    return counts


@pytest.mark.parametrize("smiles", SMILES)
def test_fragments_of_a_removed_part_are_not_counted(smiles: str) -> None:
    found = Environments.of(parse(smiles), morgan_generator(BITS, RADIUS), BITS)
    atoms = len(found.distances)
    everything = found.counts(np.ones(len(found.bits), dtype=bool))
    assert (everything == morgan_generator(BITS, RADIUS).GetCountFingerprintAsNumPy(parse(smiles))).all()
    for atom in range(atoms):
        hidden = found.with_any(np.arange(atoms) == atom, np.zeros((2, 0), dtype=int))
        assert (found.counts(~hidden) == reference(smiles, atom, None)).all()
    for bond in parse(smiles).GetBonds():
        pair = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        hidden = found.with_any(np.zeros(atoms, dtype=bool), np.array([pair, pair[::-1]]).T)
        assert (found.counts(~hidden) == reference(smiles, None, pair)).all()


@pytest.mark.parametrize("bits", [0, 64])
def test_an_atom_is_removed_with_its_bonds(bits: int) -> None:
    processor = create("graph", "molecule", width=8, layers=1, pooling="mean", bits=bits, count_width=4).processor
    whole, parts = processor("CCO"), processor.parts("CCO")
    assert parts is not None
    assert parts.names == ["atom C1", "atom C2", "atom O3", "bond C1-C2", "bond C2-O3"]
    without_middle, without_bond = parts.without(1), parts.without(4)
    assert without_middle.atoms.tolist() == whole.atoms[[0, 2]].tolist()
    assert without_middle.ends.shape == (2, 0)
    assert without_bond.atoms.tolist() == whole.atoms.tolist()
    assert without_bond.ends.tolist() == [[0, 1], [1, 0]]
    assert without_bond.counts.shape == (bits,)


@pytest.mark.parametrize("smiles", SMILES)
def test_a_corrupted_molecule_is_a_molecule(smiles: str) -> None:
    rng = np.random.default_rng(0)
    assert CanonSmiles(rewrite(smiles, rng)) == CanonSmiles(smiles)
    atoms = parse(smiles).GetNumAtoms()
    ends = sum(a.GetDegree() == 1 for a in parse(smiles).GetAtoms())
    assert parse(drop_end_atom(smiles, rng)).GetNumAtoms() == atoms - (ends > 0)
    assert list(MOLECULE_CORRUPTIONS) == ["written otherwise", "without an end atom"]


def test_writing_a_molecule_otherwise_changes_the_text() -> None:
    rng = np.random.default_rng(0)
    assert len({rewrite(SMILES[0], rng) for _ in range(10)}) > 5
