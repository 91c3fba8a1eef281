"""Cells that are too large are rejected before they are decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from multimodal import open_table, prepare_table
from multimodal.core.errors import Unreadable
from multimodal.data.tables import cells
from multimodal.data.tables.cells import check_size, encode_json_cell, raw_value
from multimodal.prepare.source import open_source


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, limit in (("MAX_TEXT_BYTES", 20), ("MAX_FILE_BYTES", 30), ("MAX_CELL_VALUES", 5)):
        monkeypatch.setattr(cells, name, limit)


@pytest.mark.parametrize(
    ("largest", "too_large", "reason"),
    [
        ("a" * 20, "a" * 21, "text too large"),
        ("é" * 10, "é" * 11, "text too large"),
        ("\ud800" * 6, "\ud800" * 7, "text too large"),
        (b"a" * 30, b"a" * 31, "file too large"),
        ({"path": "a.png", "bytes": b"a" * 30}, {"path": "a.png", "bytes": b"a" * 31}, "file too large"),
        ([1.0] * 5, [1.0] * 6, "list too large"),
    ],
)
def test_the_largest_cell_is_read_and_a_larger_one_rejected(
    largest: Any, too_large: Any, reason: str, small_limits: None
) -> None:
    check_size(largest)
    assert raw_value(largest) == (largest["bytes"] if isinstance(largest, dict) else largest)
    with pytest.raises(Unreadable) as error:
        raw_value(too_large)
    assert error.value.reason == reason


def test_a_json_cell_is_checked_before_it_is_parsed(small_limits: None) -> None:
    cell = {"json": encode_json_cell(["a"] * 100), "bytes": None, "path": None}
    with pytest.raises(Unreadable, match="a text of"):
        raw_value(cell)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_in_every_format_only_the_row_is_rejected(suffix: str, tmp_path: Path, small_limits: None) -> None:
    file = tmp_path / f"shop.{suffix}"
    titles = ["a cup", "b" * 21, "a jug"]
    if suffix == "csv":
        file.write_text("\n".join(["title", *titles]) + "\n")
    elif suffix == "jsonl":
        file.write_text("".join(f'{{"title": "{title}"}}\n' for title in titles))
    else:
        pq.write_table(pa.table({"title": titles}), file)
    table = open_table(str(file))
    assert (table.value(0, "title"), table.value(2, "title")) == ("a cup", "a jug")
    with pytest.raises(Unreadable, match="the cell holds a text"):
        table.value(1, "title")
    rows = list(open_source(str(file)))
    assert [getattr(row, "reason", "") for row in rows] == ["", "text too large", ""]


def test_prepare_reports_it(tmp_path: Path, small_limits: None) -> None:
    file = tmp_path / "shop.csv"
    file.write_text("\n".join(["title", *(f"cup {n}" for n in range(20)), "b" * 21]) + "\n")
    prepare_table(str(file), tmp_path / "out", max_rejects=0.5)
    (reject,) = (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()
    assert '"row": 20' in reject
    assert '"text too large"' in reject
