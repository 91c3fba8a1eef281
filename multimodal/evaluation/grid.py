"""A small table of results that can be shown as text, as HTML and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from multimodal.core.html_table import html_table


@dataclass(frozen=True)
class Grid:
    """Rows of text under named columns; the first column is a name, the others are numbers.

    Args:
        title: a line above it.
        columns: names of the columns.
        rows: the cells of each row.

    Examples:
        >>> print(Grid("Cups", ["name", "count"], [["red", "3"]]).markdown())
        Cups
        <BLANKLINE>
        | name | count |
        | --- | ---: |
        | red | 3 |
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def table(self) -> Table:
        """Return the table for rich's console."""
        table = Table(
            title=Text(self.title) if self.title else None,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            padding=0,
        )
        for number, name in enumerate(self.columns):
            table.add_column(name, justify="right" if number else "left", no_wrap=True)
        for row in self.rows:
            table.add_row(*map(Text, row))  # not markup, if there are brackets in a name
        return table

    def html(self) -> str:
        """Return the table as HTML, for a notebook."""
        return html_table(self.columns, self.rows, self.title)

    def markdown(self) -> str:
        """Return the title and the table as Markdown."""
        lines = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)], *self.rows]
        cells = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
        return "\n".join([self.title, "", *cells])


def number(value: float, digits: int = 3) -> str:
    """Write a measure with a fixed number of digits; NaN, which stands for one that is not defined, as a dash.

    Examples:
        >>> number(0.5), number(float("nan")), number(12.3456, 1)
        ('0.500', '-', '12.3')
    """
    return "-" if value != value else f"{value:.{digits}f}"
