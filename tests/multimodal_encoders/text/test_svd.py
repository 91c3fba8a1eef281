"""Latent semantic analysis equals a dense singular value decomposition, and ignores what cannot be read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from multimodal_encoders.text.svd import SVD

from multimodal.core.errors import UsageError

TEXTS = [f"{a} {b} {c}" for a in ("red", "blue", "old") for b in ("cup", "hat", "bowl") for c in ("one", "two")]


def features(encoder: SVD, texts: list[str]) -> np.ndarray:
    return encoder(**encoder.processor.collate([encoder.processor(text) for text in texts])).numpy()


def dense(encoder: SVD, texts: list[str]) -> np.ndarray:
    rows = np.zeros((len(texts), len(encoder.table.weight)))
    for row, text in zip(rows, texts, strict=True):
        inputs = encoder.processor.collate([encoder.processor(text)])
        row[inputs["terms"].numpy()] = inputs["weights"].numpy()
    return rows


def test_features_equal_a_dense_decomposition_up_to_signs_and_one_scale() -> None:
    encoder = SVD(vocab_size=60, width=5)
    values: list[Any] = [*TEXTS, 3, ""]
    encoder.fit(values)
    _, singular, directions = np.linalg.svd(dense(encoder, TEXTS), full_matrices=False)
    other = ["blue bowl two", "a red hat", "nothing known: xyz"]
    expected = dense(encoder, other) @ directions[:5].T
    expected /= np.sqrt((singular[:5] ** 2).sum() / (len(TEXTS) * 5))
    gram = expected @ expected.T  # equal singular values have no order of their own
    found = features(encoder, other)
    assert np.abs(found @ found.T - gram).max() < 1e-3 * np.abs(gram).max()
    assert (features(encoder, TEXTS) ** 2).mean() == pytest.approx(1, rel=1e-3)


def test_few_and_no_texts() -> None:
    few = SVD(vocab_size=60, width=9)
    few.fit(["red cup", "red hat"])
    assert np.isfinite(features(few, ["red", "hat"])).all()
    nothing = SVD(vocab_size=60, width=2)
    nothing.fit(["a", "b"])  # no term is in two texts
    assert np.isfinite(features(nothing, ["a"])).all()
    SVD(vocab_size=10).fit([])
    with pytest.raises(UsageError, match="must be at least 1"):
        SVD(width=0)
