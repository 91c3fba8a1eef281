"""Tables for notebooks escape, shorten and describe what they show."""

from __future__ import annotations

import numpy as np

from multimodal.core.html_table import MAX_CELL, cell_text, html_table, shorten


def test_every_text_is_escaped() -> None:
    page = html_table(["<i>"], [["<b>&"]], title="<p>")
    assert page.startswith("<p>&lt;p&gt;</p><table>")
    assert "<th>&lt;i&gt;</th>" in page
    assert "<td>&lt;b&gt;&amp;</td>" in page


def test_long_values_are_cut_before_they_are_escaped() -> None:
    page = html_table(["value"], [["&" * 1000]])
    assert page.count("&amp;") == MAX_CELL - 1
    assert "…</td>" in page
    assert shorten("x" * MAX_CELL) == "x" * MAX_CELL


def test_values_are_described() -> None:
    assert [cell_text(v) for v in (None, bytes(1500), np.zeros((2, 3)), np.float64(0.5), 7, "cup")] == [
        "", "1,500 bytes", "ndarray (2, 3)", "0.5", "7", "cup",
    ]  # fmt: skip
