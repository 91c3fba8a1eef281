"""Captions from templates over columns: ``a {colour} {kind}``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from multimodal.core.errors import UsageError, shown, suggest
from multimodal.prepare.cleaning import clean_text

MAX_TEMPLATE = 2000  # characters
MAX_FILLED = 20_000  # characters of a caption
PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")


@dataclass(frozen=True)
class Template:
    """A text with columns in braces.

    Names in braces are looked up, never evaluated: there are no attributes, indexes or formats. ``{{`` and ``}}`` stand for
    braces.

    Attributes:
        text: the template as it was written.
        pieces: texts and columns in turn, texts first: ``("a ", "colour", " cup")``.

    Examples:
        >>> template = Template.parse("a {colour} {kind}", ["colour", "kind"])
        >>> template.fill({"colour": "red", "kind": "cup"}), template.fill({"kind": "cup"})
        ('a red cup', None)
        >>> Template.parse("a {colour.real}", ["colour"])
        Traceback (most recent call last):
        multimodal.core.errors.UsageError: The template 'a {colour.real}' names a column 'colour.real', which the table ...
    """

    text: str
    pieces: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, columns: Sequence[str]) -> Template:
        """Parse a template.

        Args:
            text: the template.
            columns: the table's columns.

        Raises:
            UsageError: a brace is not closed, a name in braces is not a column, there is none, or the template is too long.
        """
        if len(text) > MAX_TEMPLATE:
            raise UsageError(f"The template {shown(text)!r} has more than {MAX_TEMPLATE:,} characters.")
        pieces = [""]
        for found in PIECE.finditer(text):
            piece, column = found[0], found[1]
            if piece in ("{", "}"):
                raise UsageError(
                    f"The template {shown(text)!r} has a single {piece!r}: write a column in braces, as in {{colour}}, or"
                    " {{ and }} for braces."
                )
            if column is None:
                pieces[-1] += piece[0] if piece in ("{{", "}}") else piece
            elif column not in columns:
                known = suggest(shown(column), [*columns])
                raise UsageError(
                    f"The template {shown(text)!r} names a column {shown(column)!r}, which the table does not have; only"
                    f" names of columns may be in braces.{known}"
                )
            else:
                pieces += [column, ""]
        if len(pieces) == 1:
            raise UsageError(f"The template {shown(text)!r} names no column: all rows would have the same caption.")
        return cls(text, tuple(pieces))

    @property
    def columns(self) -> list[str]:
        """The columns that it names."""
        return list(dict.fromkeys(self.pieces[1::2]))

    def fill(self, values: Mapping[str, Any]) -> str | None:
        """Return the caption of a row; None: a value is missing, is not a text or number, or is too long."""
        filled = [as_words(values.get(piece)) if number % 2 else piece for number, piece in enumerate(self.pieces)]
        if any(piece is None for piece in filled) or sum(map(len, filter(None, filled))) > MAX_FILLED:
            return None
        return clean_text("".join(piece or "" for piece in filled)) or None


def as_words(value: Any) -> str | None:
    """Return a value as captions have it: a text, a number, a list of such; None for what has no words.

    Examples:
        >>> as_words(3.0), as_words(["red", "blue"]), as_words(b"x"), as_words(" ")
        ('3', 'red, blue', None, None)
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and abs(value) < 10**18:
        return str(value)
    if isinstance(value, float) and value == value and abs(value) != float("inf"):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        words = [as_words(one) for one in value[:100]]
        return ", ".join(word for word in words if word) or None if None not in words else None
    return clean_text(value) or None if isinstance(value, str) else None
