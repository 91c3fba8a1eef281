"""Reductions of vectors equal those of scikit-learn, and are the same when the layout is read again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA, TruncatedSVD

from multimodal.core.errors import MultimodalError, UsageError
from multimodal.search.engines.layout import PROJECTION, Layout

DIM = 12


def vectors_of(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    vectors = (
        rng.standard_normal((n, 4)) @ rng.standard_normal((4, DIM)) + 0.1 * rng.standard_normal((n, DIM)) + 1
    ).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("reduction", ["pca", "svd"])
def test_a_reduction_keeps_the_cosines_that_those_of_scikit_learn_keep(reduction: str) -> None:
    sample, others = vectors_of(300), vectors_of(20, seed=1)
    peer = PCA(3) if reduction == "pca" else TruncatedSVD(3, algorithm="arpack")
    expected = peer.fit(sample.astype(np.float64)).transform(others.astype(np.float64))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    reduced = Layout(DIM, searched_dim=3, reduction=reduction).fitted(sample).reduce(others)
    assert reduced.dtype == np.float32
    np.testing.assert_allclose(reduced @ reduced.T, expected @ expected.T, atol=1e-4)  # axes may point the other way


def test_a_layout_is_read_as_it_was_written(tmp_path: Path) -> None:
    layout = Layout(DIM, ["text"], ["set"], "int8", 5, "pca").fitted(vectors_of(50))
    layout.write(tmp_path)
    read = Layout.read(tmp_path)
    assert read == layout
    np.testing.assert_array_equal(read.reduce(vectors_of(3)), layout.reduce(vectors_of(3)))
    content = bytearray((tmp_path / PROJECTION).read_bytes())
    content[-1] ^= 1
    (tmp_path / PROJECTION).write_bytes(content)
    with pytest.raises(MultimodalError, match="is damaged"):
        Layout.read(tmp_path)


def test_rows_that_were_stored_without_ranges_are_not_searched_by_them() -> None:
    document = {name: value for name, value in Layout(DIM, ["text"], ["price"]).document().items() if name != "ranges"}
    layout = Layout.of(document).with_rows([{"price": 3, "day": "2024-01-31"}], ["a"], ["#a"])  # others have prices too
    assert layout.columns == ["price", "day"]
    with pytest.raises(UsageError, match="built by a version without ranges; build it again"):
        layout.kinds("price")
    assert Layout.of(layout.document()) == layout


def test_a_prefix_is_of_unit_length_and_whole_vectors_are_as_they_are() -> None:
    vectors = vectors_of(4)
    prefix = vectors[:, :5] / np.linalg.norm(vectors[:, :5], axis=1, keepdims=True)
    np.testing.assert_allclose(Layout(DIM, searched_dim=5).reduce(vectors), prefix, atol=1e-6)
    assert Layout(DIM).reduce(vectors) is vectors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"searched_dim": 0}, "their first 0 cannot be searched|0"),
        ({"searched_dim": 13}, "The vectors are 12 wide"),
        ({"reduction": "umap"}, "reduction must be prefix, pca or svd, not 'umap'"),
        ({"quantization": "int4"}, "quantization must be int8 or binary, not 'int4'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Layout(DIM, **settings)  # pyright: ignore[reportArgumentType]
