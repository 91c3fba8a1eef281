"""Cells of tables that consist of files: values of any type as JSON, and marks of unreadable values."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from multimodal.core.errors import Unreadable

CELL_FIELDS = ("json", "bytes", "path")  # fields of a cell that is either a value as JSON, or a file
FILE_FIELDS = {"bytes", "path"}
UNREADABLE_MARK = "!"  # no JSON text starts with it


def encode_json_cell(value: Any) -> str:
    """Encode a value as JSON, so that one Arrow column can store values of different types."""
    return json.dumps(value)


def unreadable_cell(reason: str, message: str) -> str:
    """Return the text that is stored for a value that cannot be read; ``decode_json_cell`` raises it."""
    return UNREADABLE_MARK + json.dumps([reason, message])


def decode_json_cell(text: str) -> Any:
    """Decode the text of ``encode_json_cell``.

    Raises:
        Unreadable: the text is that of ``unreadable_cell``.
    """
    if text.startswith(UNREADABLE_MARK):
        reason, message = json.loads(text[1:])
        raise Unreadable(reason, message)
    return json.loads(text)


def raw_value(cell: Any) -> Any:
    """Return a cell's value as processors expect it: the bytes or path of a file, None if missing, else the value.

    NaN and the empty text are missing values, as they are in a CSV file.

    Raises:
        Unreadable: the value cannot be read.
    """
    cell = unpack_cell(cell)
    if isinstance(cell, Mapping) and cell.keys() == FILE_FIELDS:
        cell = cell["path"] if cell["bytes"] is None else cell["bytes"]
    return None if is_missing(cell) else cell


def is_missing(value: Any) -> bool:
    """Return whether a value stands for a missing one: None, NaN or the empty text."""
    return value is None or (isinstance(value, str) and not value) or (isinstance(value, float) and math.isnan(value))


def unpack_cell(cell: Any) -> Any:
    """Convert a cell of a tar to the form in other tables: a value, or a file as a mapping of ``path`` and ``bytes``.

    Raises:
        Unreadable: the value cannot be read.
    """
    if isinstance(cell, Mapping) and cell.keys() == set(CELL_FIELDS):
        return (
            {"path": cell["path"], "bytes": cell["bytes"]} if cell["json"] is None else decode_json_cell(cell["json"])
        )
    return cell


def decode_or_none(text: str) -> Any:
    """Decode the text of ``encode_json_cell``; None if the value cannot be read."""
    return None if text.startswith(UNREADABLE_MARK) else json.loads(text)


def is_number(text: str) -> bool:
    """Return whether Python reads the text as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
