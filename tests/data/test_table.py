"""Tables are opened by name."""

from __future__ import annotations

import pytest

from multimodal.core.errors import UsageError
from multimodal.data.table import open_table


def test_the_glyphs_are_a_table_whose_cells_are_all_there() -> None:
    table = open_table("glyphs")
    assert table.name == "glyphs"
    assert set(table.metadata_columns) <= set(table.columns)
    assert [column for column in table.columns if table.value(len(table) - 1, column) is None] == []


def test_an_unknown_name_is_answered_with_the_close_and_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"no table 'glyph'.*Did you mean 'glyphs'\?.*Known: .*glyphs"):
        open_table("glyph")
