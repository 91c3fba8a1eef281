"""A table that reads single cells has columns, and shows its name, its rows and its columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from multimodal.core.errors import Unreadable
from multimodal.core.table import Table


class Squares(Table):
    """Numbers and their squares; the squares of odd numbers are missing."""

    name, columns, metadata_columns = "squares", ("n", "square"), ("n",)

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def value(self, row: int, column: str) -> Any:
        return row if column == "n" else None if row % 2 else row**2


def test_a_table_shows_its_name_rows_and_columns() -> None:
    assert repr(Squares(1234)) == "Table 'squares' of 1,234 rows: n, square"
    assert repr(Squares(0)) == "Table 'squares' of 0 rows: n, square"


def test_columns_are_read_cell_by_cell() -> None:
    table = Squares(4)
    assert table.column("square") == [0, None, 4, None]
    assert table.present("square").tolist() == [True, False, True, False]
    assert Squares(0).present("n").dtype == bool


def test_the_fingerprint_changes_with_the_number_of_rows() -> None:
    assert Squares(4).fingerprint == Squares(4).fingerprint != Squares(5).fingerprint


class Photos(Table):
    """Cells of every kind: the second picture cannot be read."""

    name, columns, metadata_columns = "photos", ("photo", "size", "<title>"), ("<title>",)

    def __len__(self) -> int:
        return 7

    def value(self, row: int, column: str) -> Any:
        if column == "photo":
            if row == 1:
                raise Unreadable("missing file", "x.png does not exist")
            return b"x" * 1234
        return np.zeros((4, 3)) if column == "size" else None if row else "<b>" + "cup " * 100


def test_a_notebook_shows_the_first_rows_as_short_texts() -> None:
    page = Photos()._repr_html_()
    assert page.startswith("<p>Table &#x27;photos&#x27; of 7 rows</p>")
    assert "<th>photo</th><th>size</th><th>&lt;title&gt;</th>" in page
    assert page.count("<tr>") == 1 + 5
    assert "<td>1,234 bytes</td><td>ndarray (4, 3)</td><td>&lt;b&gt;cup cup" in page
    assert "<td>unreadable</td><td>ndarray (4, 3)</td><td></td>" in page
    assert page.count("cup") < 25
    assert Squares(0)._repr_html_().count("<tr>") == 1
