"""Vectors are stored as float32, float16 or int8 and read as unit vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from embedded_shop import embed, new_embedder, state

from multimodal.core.errors import UsageError
from multimodal.data.tables.open import open_table
from multimodal.search.embedding_folder import finished_parts, read_manifest, read_parts
from multimodal.search.stored_vectors import DTYPES, stored_of, to_column, to_stored, vectors_of
from multimodal.search.unit_vectors import not_unit


def unit_vectors(count: int, dim: int) -> np.ndarray:
    drawn = np.random.default_rng(0).normal(size=(count, dim))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(("dtype", "cosine"), [("float32", 1 - 1e-6), ("float16", 1 - 1e-6), ("int8", 0.9995)])
@pytest.mark.parametrize("dim", [1, 8, 512])
def test_vectors_keep_their_direction(tmp_path: Path, dtype: str, cosine: float, dim: int) -> None:
    vectors, present = unit_vectors(50, dim), np.arange(50) % 3 > 0
    pq.write_table(pa.table({"text": to_column(to_stored(vectors, dtype), present)}), tmp_path / "part.parquet")
    part = pq.read_table(tmp_path / "part.parquet")
    assert part["text"].type.equals(pa.list_(pa.from_numpy_dtype(dtype), dim))
    assert part["text"].is_null().to_pylist() == (~present).tolist()
    found = vectors_of(part, "text", dim)
    assert (found.dtype, found.shape) == (np.float32, (int(present.sum()), dim))
    assert len(not_unit(found)) == 0
    assert (found * vectors[present]).sum(axis=1).min() > cosine


def test_int8_is_scaled_to_the_largest_component() -> None:
    vectors = unit_vectors(20, 8)
    expected = np.array([[round(127 * x / max(map(abs, row))) for x in row] for row in vectors.tolist()])
    stored = to_stored(vectors, "int8")
    assert stored.dtype == np.int8
    assert np.abs(stored - expected).max() <= 1  # rounding of halves
    part = pa.table({"text": to_column(stored, np.ones(20, bool))})
    assert np.array_equal(
        to_stored(vectors_of(part, "text", 8), "int8"), stored
    )  # and does not change when it is stored again


def test_what_is_not_finite_is_noticed_by_readers() -> None:
    vectors = np.array([[np.nan, 1], [np.inf, 0], [0, 0], [0.6, 0.8]], dtype=np.float32)
    for dtype in DTYPES:
        part = pa.table({"text": to_column(to_stored(vectors, dtype), np.ones(4, bool))})
        with np.errstate(invalid="ignore"):
            assert not_unit(vectors_of(part, "text", 2)).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "column", [pa.array([[0.5, 0.5]]), pa.array([1]), pa.array([[1.0]], pa.list_(pa.float32(), 1))]
)
def test_other_columns_are_refused(column: pa.Array) -> None:
    part = pa.table({"text": column})
    for read in (vectors_of, stored_of):
        with pytest.raises(TypeError, match="is not a type of vectors"):
            read(part, "text", 2)
    with pytest.raises(KeyError):
        vectors_of(part, "image", 2)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_folder_of_small_numbers_is_read_resumed_and_opened_as_a_table(tmp_path: Path, dtype: str) -> None:
    embedder, out = new_embedder(), tmp_path / "out"
    embed(embedder, out, dtype=dtype)
    embed(embedder, tmp_path / "exact")
    manifest = read_manifest(out)
    assert manifest.dtype == dtype
    assert list(finished_parts(out, manifest, {})) == [0, 1, 2]  # judged by their contents
    for part, exact in zip(read_parts(out), read_parts(tmp_path / "exact"), strict=True):
        for modality in ("graph", "text"):
            assert part[modality].is_valid().equals(exact[modality].is_valid())
            cosines = (vectors_of(part, modality, 5) * vectors_of(exact, modality, 5)).sum(axis=1)
            assert cosines.min(initial=1) > 0.9995
    (out / "part-00001.parquet").unlink()
    before = state(tmp_path / "exact")
    assert embed(embedder, out, dtype=dtype).rows_before == 7
    assert [row["key"] for row in state(out)] == [row["key"] for row in before]
    assert len(open_table(str(out)).value(0, "text")) == 5


@pytest.mark.parametrize(("name", "value"), [("dtype", "float64"), ("precision", "float16")])
def test_an_unknown_type_is_refused(tmp_path: Path, name: str, value: str) -> None:
    settings: dict[str, Any] = {name: value}
    with pytest.raises(UsageError, match=f"{name} is one of .*, not '{value}'"):
        embed(new_embedder(), tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()
