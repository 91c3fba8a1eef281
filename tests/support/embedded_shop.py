"""A shop of titles and drawings, some missing, and a small model that embeds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from multimodal.core.embedder import Embedder
from multimodal.core.registry import create
from multimodal.core.table import Table
from multimodal.data.samples import Samples
from multimodal.search.embed import Embedded, embed_samples
from multimodal.search.embedding_folder import read_parts

PATH = {"x": [[0.0, 1, 1, 0], [1, 0, 0, 0]], "edge_index": [[0, 1], [1, 0]], "edge_attr": [[1.0, 1, 1], [1, 1, -1]]}
POINT = {"x": [[0.5, 0, 1, 1]], "edge_index": [], "edge_attr": []}
TITLES = ["red cup", None, "blue cup", "mug", None, None, None, None, None, "pot", "tea pot"]
CELLS: dict[str, Sequence[Any]] = {
    "title": TITLES,
    "subtitle": [title and title[::-1] for title in TITLES],
    "drawing": [PATH, POINT, None, POINT, POINT, PATH, None, None, None, PATH, None],
    "sku": [f"s-{row}" for row in range(11)],
    "product": [row // 2 for row in range(11)],
}
ROWS = np.arange(11)


def repeated(times: int) -> Mapping[str, Sequence[Any]]:
    """The cells several times, each row with a key of its own."""
    cells = {column: list(values) * times for column, values in CELLS.items()}
    return cells | {"sku": [f"s-{row}" for row in range(11 * times)]}


class ShopTable(Table):
    """Return columns of cells; rows 4 to 7, a full part, have no text, and rows 6 to 8 have nothing."""

    metadata_columns = ("title", "product")

    def __init__(self, name: str, cells: Mapping[str, Sequence[Any]], version: str = "") -> None:
        self.name, self.cells, self.columns, self.version = name, cells, tuple(cells), version

    @property
    def fingerprint(self) -> str:
        return f"{self.name} {len(self)} {self.version}"

    def __len__(self) -> int:
        return len(self.cells["sku"])

    def value(self, row: int, column: str) -> Any:
        return self.cells[column][row]


def samples_of(
    table: str = "shop",
    cells: Mapping[str, Sequence[Any]] = CELLS,
    key: str = "sku",
    group: str | None = "product",
    version: str = "",
    **columns: str,
) -> Samples:
    return Samples.of(
        ShopTable(table, cells, version), columns or {"graph": "drawing", "text": "title"}, key=key, group=group
    )


def new_embedder(seed: int = 0) -> Embedder:
    torch.manual_seed(seed)
    text = create("text", "transformer", vocab_size=60, width=8, layers=1, heads=2)
    embedder = Embedder({"graph": create("graph", "gnn", width=8, layers=1), "text": text}, dim=5)
    embedder.fit_processors({"text": [title for title in TITLES if title]})
    return embedder.eval()


def embed(embedder: Embedder, out: Path, rows: np.ndarray = ROWS, **options: Any) -> Embedded:
    settings: dict[str, Any] = {"samples": samples_of(), "part_rows": 4, "batch_size": 2} | options
    return embed_samples(embedder, rows=rows, out=out, **settings)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def state(folder: Path) -> list[dict[str, Any]]:
    return [row for part in read_parts(folder) for row in part.to_pylist()]


def assert_like(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Compare states: all cells are equal, vectors up to rounding, as they were computed in other batches."""
    assert len(found) == len(expected)
    for row, wanted in zip(found, expected, strict=True):
        for column, value in wanted.items():
            numbers = column in ("graph", "text") and value is not None
            assert row[column] == (pytest.approx(value, abs=1e-6) if numbers else value)
