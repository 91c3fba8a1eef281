"""Small tables as HTML, for notebooks."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

MAX_CELL = 80  # characters of a cell


def html_table(head: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> str:
    """Return a table as HTML, with every value as escaped text of at most ``MAX_CELL`` characters.

    Args:
        head: the names of the columns.
        rows: the values of each row, see ``cell_text``.
        title: a line above the table; "": none.

    Examples:
        >>> html_table(["split", "rows"], [["train", 8]])
        '<table><thead><tr><th>split</th><th>rows</th></tr></thead><tbody><tr><td>train</td><td>8</td></tr></tbody></table>'
    """
    return html_of_cells(head, (map(html_cell, row) for row in rows), title)


def html_of_cells(head: Sequence[str], rows: Iterable[Iterable[str]], title: str = "") -> str:
    """Return a table whose cells are HTML already; its head and title are escaped.

    Args:
        head: the names of the columns.
        rows: the cells of each row, as HTML.
        title: a line above the table; "": none.
    """
    names = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    above = f"<p>{html.escape(title)}</p>" if title else ""
    return f"{above}<table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>"


def html_cell(value: Any) -> str:
    """Return a value as escaped text of at most ``MAX_CELL`` characters, see ``cell_text``."""
    return html.escape(shorten(cell_text(value)))


def cell_text(value: Any) -> str:
    """Return a value as text: a missing one is empty, a file is its size, an array its shape.

    Examples:
        >>> cell_text(None), cell_text(b"GIF89a"), cell_text(["red", 3])
        ('', '6 bytes', "['red', 3]")
    """
    if value is None:
        return ""
    if isinstance(value, bytes | bytearray):
        return f"{len(value):,} bytes"
    if shape := getattr(value, "shape", None):
        return f"{type(value).__name__} {tuple(shape)}"
    return str(value)


def shorten(text: str, characters: int = MAX_CELL) -> str:
    """Return a text, cut with an ellipsis to a number of characters.

    Examples:
        >>> shorten("a red cup", 6)
        'a red…'
    """
    return text if len(text) <= characters else text[: characters - 1] + "…"
