"""A table of results as text, HTML and Markdown."""

from __future__ import annotations

from multimodal.evaluation.grid import Grid, number
from multimodal.evaluation.render import render_text

GRID = Grid("Cups | hats", ["name", "a|b"], [["red <b>", "3"], ["x|y", "-"]])


def test_markdown_has_a_line_for_each_row_with_escaped_bars() -> None:
    assert GRID.markdown().splitlines() == [
        "Cups | hats",
        "",
        "| name | a\\|b |",
        "| --- | ---: |",
        "| red <b> | 3 |",
        "| x\\|y | - |",
    ]


def test_html_is_escaped_and_text_is_aligned() -> None:
    assert "red &lt;b&gt;" in GRID.html()
    lines = render_text([GRID.table()]).splitlines()
    assert lines[0] == "Cups | hats"
    assert lines[-1].split() == ["x|y", "-"]


def test_a_measure_that_is_not_defined_is_a_dash() -> None:
    assert (number(float("nan")), number(1 / 3), number(2.25, 1)) == ("-", "0.333", "2.2")
