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
        "keys": [MACCSkeys.GenMACCSKeys(molecule).GetBit(bit) for bit in range(167)],
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
