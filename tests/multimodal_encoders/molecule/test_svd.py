"""Latent directions of fragments equal a dense singular value decomposition, and survive saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multimodal.core.embedder import Embedder
from multimodal.core.errors import UsageError

pytest.importorskip("rdkit.Chem", reason="rdkit is not installed")

from multimodal_encoders.molecule.fragments import SIZES
from multimodal_encoders.molecule.svd import MoleculeSVD

SMILES = ["C" * n + end for n in range(1, 5) for end in ("O", "(=O)O", "N", "c1ccccc1", "Cl", "C(=O)OC")]


def features(encoder: MoleculeSVD, smiles: list[str]) -> np.ndarray:
    return encoder(**encoder.processor.collate(encoder.processor.process(smiles))).numpy()


def weighted(encoder: MoleculeSVD, smiles: list[str]) -> np.ndarray:
    """The log1p of the counts, each kind divided by the root mean square of its length over ``SMILES``."""
    parts, start = [], 0
    for kind in SIZES:
        columns = slice(start, start := start + SIZES[kind])
        fitted, counts = (
            np.log1p(np.stack(encoder.processor.process(values))[:, columns].astype(float))
            for values in (SMILES, smiles)
        )
        parts.append(counts / np.sqrt((fitted**2).sum(axis=1).mean()))
    return np.concatenate(parts, axis=1)


def test_features_equal_a_dense_decomposition_up_to_signs_and_one_scale() -> None:
    encoder = MoleculeSVD(width=6)
    values: list[Any] = [*SMILES, 3, "no molecule"]
    encoder.fit(values)
    _, singular, directions = np.linalg.svd(weighted(encoder, SMILES), full_matrices=False)
    other = ["CC(C)O", "Oc1ccccc1", "[Na+].[Cl-]"]
    expected = weighted(encoder, other) @ directions[:6].T
    expected /= np.sqrt((singular[:6] ** 2).sum() / (len(SMILES) * 6))
    gram = expected @ expected.T  # directions have no signs of their own
    found = features(encoder, other)
    assert np.abs(found @ found.T - gram).max() < 1e-2 * np.abs(gram).max()
    assert (features(encoder, SMILES) ** 2).mean() == pytest.approx(1, rel=1e-3)


def test_few_and_no_molecules() -> None:
    few = MoleculeSVD(width=9, kinds=["groups", "torsions"])
    few.fit(["CCO", "CC"])  # neither has four atoms in a row
    assert np.isfinite(features(few, ["CCCC"])).all()
    without = MoleculeSVD(width=2, kinds=["torsions"])
    without.fit(["CCO", "CC"])
    assert not features(without, ["CCCC"]).any()
    nothing = MoleculeSVD(width=2)
    nothing.fit([])
    assert not features(nothing, ["CCO"]).any()


def test_a_saved_model_gives_the_same_vectors(tmp_path: Path) -> None:
    encoder = MoleculeSVD(width=4, kinds=["keys"])
    encoder.fit(SMILES)
    embedder = Embedder({"graph": encoder}, dim=3)
    embedder.save_pretrained(tmp_path / "model")
    expected = embedder.encode(graph=SMILES[:3])
    assert np.array_equal(Embedder.from_pretrained(tmp_path / "model").encode(graph=SMILES[:3]), expected)


def test_wrong_settings_say_what_is_possible() -> None:
    kinds: Any = ["rings"]
    with pytest.raises(UsageError, match=r"\['rings'\] some of morgan, stereo, features"):
        MoleculeSVD(kinds=kinds)
    with pytest.raises(UsageError, match="width 0 must be at least 1"):
        MoleculeSVD(width=0)
