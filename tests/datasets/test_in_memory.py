"""A table in memory has the cells of its rows, and a fingerprint that changes with any cell."""

from __future__ import annotations

import pytest

from multimodal.datasets.in_memory import InMemoryTable


def shop(title: str | None = "a plate", photo: bytes = b"jpeg") -> InMemoryTable:
    rows = [{"id": "a", "title": "a cup", "photo": b"jpeg"}, {"id": "b", "title": title, "photo": photo}]
    return InMemoryTable("shop", rows, ("id",))


def test_the_table_has_the_cells_of_the_rows() -> None:
    table = shop(title=None)
    assert (len(table), table.columns, table.metadata_columns) == (2, ("id", "title", "photo"), ("id",))
    assert table.column("title") == ["a cup", None]
    assert table.present("title").tolist() == [True, False]
    with pytest.raises(KeyError, match="colour"):
        table.value(0, "colour")


def test_the_fingerprint_changes_with_any_cell() -> None:
    assert shop().fingerprint == shop().fingerprint
    assert len({shop().fingerprint, shop(title="a jug").fingerprint, shop(photo=b"png").fingerprint}) == 3
