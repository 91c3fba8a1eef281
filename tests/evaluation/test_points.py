"""Points and neighbours of an evaluation, as the Parquet file that the viewer embedding-atlas opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch.nn import functional

from multimodal.core.embeddings import Embeddings
from multimodal.core.registry import create
from multimodal.core.table import Table
from multimodal.data.samples import Samples
from multimodal.evaluation.evaluated import RowVectors
from multimodal.evaluation.points import Points, describing_columns, nearest, write_points


def rows_of(n: int) -> list[dict[str, Any]]:
    return [{"id": f"k{i}", "title": f"cup {i}", "alias": f"mug {i}", "x": i, "shop": "ab"[i % 2]} for i in range(n)]


def vectors_of(n: int, dim: int = 6, seed: int = 0) -> torch.Tensor:
    return functional.normalize(torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def queries_of(n: int) -> RowVectors:
    """Every second row has an alias."""
    samples = Samples.of(rows_of(n), {"text": "title", "alias": "alias"}, key="id")
    numbers = {"text": torch.arange(n), "alias": torch.arange(0, n, 2)}
    vectors = {m: vectors_of(len(rows), seed=seed) for seed, (m, rows) in enumerate(numbers.items())}
    keys = tuple(str(i) for i in range(n))
    return RowVectors(samples, Embeddings(vectors, numbers, torch.arange(n), keys), {m: [] for m in vectors})


def test_nearest_equals_sorting_all_cosines() -> None:
    vectors = vectors_of(40).numpy()
    numbers, distances = nearest(vectors, k=5)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -2)
    assert np.array_equal(numbers, np.argsort(-cosines, axis=1, kind="stable")[:, :5])
    assert np.allclose(distances, 1 - np.sort(cosines, axis=1)[:, ::-1][:, :5], atol=1e-6)


def test_nearest_of_few_vectors() -> None:
    for n, k in ((0, 0), (1, 0), (2, 1)):
        assert nearest(vectors_of(n).numpy())[0].shape == (n, k)


def test_the_file_has_the_columns_and_neighbours_of_the_viewer(tmp_path: Path) -> None:
    queries = queries_of(9)
    points = Points.of(queries)
    processor = create("text", "bag").processor
    write_points(tmp_path / "points.parquet", points, queries.samples, {"text": processor, "alias": processor})
    table = pq.read_table(tmp_path / "points.parquet")
    assert table.column_names[:6] == ["key", "modality", "x", "y", "text", "neighbors"]
    assert "x_" in table.column_names  # a column of the table with the name of one of ours
    rows = table.to_pylist()
    assert len(rows) == 9 + 5
    assert {(row["key"], row["modality"], row["text"]) for row in rows} >= {
        ("k3", "text", "cup 3"),
        ("k4", "alias", "mug 4"),
    }
    for row in rows:
        ids, distances = row["neighbors"]["ids"], row["neighbors"]["distances"]
        assert len(ids) == len(distances) == 10
        assert all(0 <= i < len(rows) for i in ids)  # numbers of rows of the file
        assert distances == sorted(distances)
        assert row["shop"] == "ab"[int(row["key"][1:]) % 2]
        assert row["x_"] == int(row["key"][1:])


def test_of_too_many_vectors_whole_rows_are_drawn() -> None:
    points = Points.of(queries_of(40), most=30)
    assert (len(points.rows), points.left_out) == (30, 60 - 30)
    by_row: dict[int, list[str]] = {}
    for row, modality in zip(points.rows.tolist(), points.modalities, strict=True):
        by_row.setdefault(row, []).append(modality)
    whole = [row for row, modalities in by_row.items() if len(modalities) == 2 - row % 2]
    assert len(whole) >= len(by_row) - 1  # the last may be cut


def test_vectors_that_are_not_finite_are_left_out() -> None:
    queries = queries_of(6)
    queries.embeddings.vectors["text"][2, 0] = torch.nan
    points = Points.of(queries)
    assert points.left_out == 1
    assert (2, "text") not in zip(points.rows.tolist(), points.modalities, strict=True)
    assert all(np.isfinite(layout).all() for layout in points.layouts.values())


class Odd(Table):
    """A table whose columns have values of several types, and half of a character."""

    name, columns, metadata_columns = "odd", ("t", "m", "n"), ("t", "m", "n")
    cells = (("a", 1, 2**70), ("b\udc80", "x", 1), ("c", None, None))

    def __len__(self) -> int:
        return 3

    def value(self, row: int, column: str) -> Any:
        return self.cells[row]["tmn".index(column)]


def test_columns_of_several_types_and_odd_values_can_be_written(tmp_path: Path) -> None:
    samples = Samples.of(Odd(), {"text": "t"})
    columns = describing_columns(samples, np.arange(3))
    assert columns["m"] == ["1", "x", None]
    numbers = torch.arange(3)
    embeddings = Embeddings({"text": vectors_of(3)}, {"text": numbers}, numbers, ("0", "1", "2"))
    points = Points.of(RowVectors(samples, embeddings, {"text": []}))
    write_points(tmp_path / "p.parquet", points, samples, {"text": create("text", "bag").processor})
    written = pq.read_table(tmp_path / "p.parquet")
    assert written.column("t").to_pylist() == ["a", "b?", "c"]
    assert written.column("n").to_pylist() == [str(2**70), "1", None]
