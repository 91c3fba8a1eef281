"""Tables, and the files that they name, are read from chained addresses."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from multimodal.core.errors import Unreadable, UsageError
from multimodal.core.table import Table
from multimodal.data.tables.addresses import join
from multimodal.data.tables.file_cells import resolve_file_cell
from multimodal.data.tables.open import locate, open_table, stream_rows

pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed file"),
]


def rows_of(table: Table) -> list[dict[str, Any]]:
    return [{c: table.value(row, c) for c in table.columns} for row in range(len(table))]


def test_a_table_in_an_archive_is_read_by_a_chain_of_addresses(tmp_path: Path) -> None:
    archive = tmp_path / "all.zip"
    rows = "id,photo\n1,photos/a.png\n"
    for last in ("2,b.png\n", "3,c.png\n"):  # a changed archive is read again
        with zipfile.ZipFile(archive, "w") as parts:
            parts.writestr("shop/pairs.csv", rows + last)
            parts.writestr("shop/photos/a.png", b"a picture")
            parts.writestr("lines/1.jsonl", '{"n": 1}\n')
            parts.writestr("lines/2.jsonl", '{"n": 2}\n')
        address = f"zip://shop/pairs.csv::{archive}"
        table = open_table(address)
        assert rows_of(table)[1]["id"] == last[0]
    assert table.base == f"zip://shop::{archive}"
    assert resolve_file_cell(table.value(0, "photo"), table.base) == b"a picture"
    for outside in ("../lines/1.jsonl", f"zip://lines/1.jsonl::{archive}", "a::b"):
        with pytest.raises(Unreadable, match="is not in the folder"):
            resolve_file_cell(outside, table.base)
    source = locate(address)
    assert list(stream_rows(source, source.files[0])) == rows_of(table)
    for several in ("lines/*.jsonl", "lines"):
        assert rows_of(open_table(f"zip://{several}::{archive}")) == [{"n": 1}, {"n": 2}]
    (tmp_path / "pairs.csv").write_text("n\n1\n")
    with pytest.raises(UsageError, match="leave out 'simplecache::'"):
        open_table(f"simplecache::file://{tmp_path}/pairs.csv")
    with pytest.raises(UsageError, match="no table"):
        open_table(f"zip://none.csv::{archive}")


@pytest.mark.parametrize(
    ("folder", "name", "address"),
    [
        ("s3://bucket/shop", "red.png", "s3://bucket/shop/red.png"),
        ("zip://shop::a.zip", "red.png", "zip://shop/red.png::a.zip"),
        ("zip://::a.zip", "red.png", "zip://red.png::a.zip"),
        ("zip://shop::https://host/a.zip", "photos/red.png", "zip://shop/photos/red.png::https://host/a.zip"),
    ],
)
def test_a_folder_and_a_name_are_joined_to_an_address(folder: str, name: str, address: str) -> None:
    assert join(folder, name) == address
