"""Counts of fragments equal RDKit's, one by one."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from multimodal.core.errors import Unreadable

pytest.importorskip("rdkit.Chem", reason="rdkit is not installed")

from multimodal_encoders.molecule.fragments import GROUPS, SIZES, FragmentProcessor, Fragments
from rdkit.Chem import Fragments as Groups
from rdkit.Chem import MACCSkeys, MolFromSmiles, rdFingerprintGenerator

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"


def test_counts_equal_rdkits() -> None:
    molecule = MolFromSmiles(ASPIRIN)
    features = rdFingerprintGenerator.GetMorganFeatureAtomInvGen()
    expected: dict[Fragments, Any] = {
        "morgan": rdFingerprintGenerator.GetMorganGenerator(2, fpSize=2048).GetCountFingerprint(molecule),
        "stereo": rdFingerprintGenerator.GetMorganGenerator(2, fpSize=2048, includeChirality=True).GetCountFingerprint(
            molecule
        ),
        "features": rdFingerprintGenerator.GetMorganGenerator(
            2, fpSize=1024, atomInvariantsGenerator=features
        ).GetCountFingerprint(molecule),
        "pairs": rdFingerprintGenerator.GetAtomPairGenerator(fpSize=2048).GetCountFingerprint(molecule),
        "torsions": rdFingerprintGenerator.GetTopologicalTorsionGenerator(fpSize=2048).GetCountFingerprint(molecule),
        "keys": [MACCSkeys._pyGenMACCSKeys(molecule).GetBit(bit) for bit in range(167)],
        "groups": [getattr(Groups, name)(molecule) for name in GROUPS],
    }
    assert list(expected) == list(SIZES)
    for kind, counts in expected.items():
        found = FragmentProcessor([kind])(ASPIRIN)
        assert found.tolist() == [counts[place] for place in range(SIZES[kind])]
    together = FragmentProcessor(["groups", "keys"])
    assert np.array_equal(together(ASPIRIN), [*expected["groups"], *expected["keys"]])
    assert together.collate([together(ASPIRIN)] * 2)["counts"].shape == (2, 85 + 167)


def test_only_stereo_distinguishes_mirror_images_and_sides_of_double_bonds() -> None:
    for one, other in (("C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O"), ("F/C=C/F", r"F/C=C\F")):
        differing = [
            kind for kind in SIZES if (FragmentProcessor([kind])(one) != FragmentProcessor([kind])(other)).any()
        ]
        assert differing == ["stereo"]


def test_counts_above_255_are_255() -> None:
    assert FragmentProcessor(["pairs"])("C" * 600).max() == 255


def test_groups_are_rdkits() -> None:
    assert set(GROUPS) <= set(vars(Groups))
    assert len(GROUPS) == SIZES["groups"]


def test_workers_receive_the_processor() -> None:
    processor = FragmentProcessor(["morgan", "keys"])
    first = processor("CCO")
    assert np.array_equal(pickle.loads(pickle.dumps(processor))("CCO"), first)


def test_invalid_smiles_are_unreadable() -> None:
    with pytest.raises(Unreadable, match="not valid SMILES"):
        FragmentProcessor(["keys"])("no molecule")


@pytest.mark.parametrize(
    ("smiles", "part", "gone", "kept"),
    [
        ("CSCCO", "atom S2", "fr_sulfide", "fr_Al_OH"),
        ("CSCCO", "atom O5", "fr_Al_OH", "fr_sulfide"),
        ("CC(=O)OCCC#N", "bond C2-O4", "fr_ester", "fr_nitrile"),
        ("c1ccccc1CCN", "atom C1", "fr_benzene", "fr_NH2"),
        ("[Na+].CC(=O)[O-]", "atom O5", "fr_COO", ""),
    ],
)
def test_the_groups_of_a_removed_part_are_gone_and_others_are_kept(
    smiles: str, part: str, gone: str, kept: str
) -> None:
    processor = FragmentProcessor(["groups"])
    parts = processor.parts(smiles)
    whole, without = processor(smiles), parts.without(list(parts.names).index(part))
    assert whole[GROUPS.index(gone)] > 0
    assert without[GROUPS.index(gone)] == 0
    assert not kept or without[GROUPS.index(kept)] == whole[GROUPS.index(kept)] > 0


@pytest.mark.parametrize(
    "smiles", [ASPIRIN, "C", "[Na+].[Cl-]", "C1CC1C#N", "CN1C=NC2=C1C(=O)N(C(=O)N2C)C", "C/C=C/[C@H](N)O"]
)
def test_a_molecule_without_a_part_contains_nothing_new(smiles: str) -> None:
    processor = FragmentProcessor(list(SIZES))
    whole, parts = processor(smiles), processor.parts(smiles)
    for number in range(len(parts)):
        try:
            without = parts.without(number)
        except Unreadable:
            assert len(parts) == 1  # nothing is left
            continue
        assert (without <= whole).all()
        assert without.sum() < whole.sum()
    assert parts.draw is not None
    assert "<svg" in parts.draw([0.5] + [0.0] * (len(parts) - 1))
