"""Cells of tables that consist of files: values of any type as JSON, and marks of unreadable values."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from multimodal.core.errors import Unreadable
from multimodal.data.tables.file_cells import MAX_FILE_BYTES

CELL_FIELDS = ("json", "bytes", "path")  # fields of a cell that is either a value as JSON, or a file
FILE_FIELDS = {"bytes", "path"}
UNREADABLE_MARK = "!"  # no JSON text starts with it
MAX_TEXT_BYTES = 16 * 2**20  # of a text, which tokenizers and cleaning copy several times
MAX_CELL_VALUES = 2**22  # of a list, which Python stores in 32 bytes for each number


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
        Unreadable: the value cannot be read, or is too large.
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
        Unreadable: the value cannot be read, or is too large.
    """
    if isinstance(cell, Mapping) and cell.keys() == set(CELL_FIELDS):
        if cell["json"] is not None:
            check_size(cell["json"])
            return decode_json_cell(cell["json"])
        cell = {"path": cell["path"], "bytes": cell["bytes"]}
    check_size(cell)
    return cell


def check_size(cell: Any) -> None:
    """Check that a cell is small enough to be decoded, cleaned and tokenized.

    Args:
        cell: a value, or a file as bytes or a mapping.

    Raises:
        Unreadable: a text has more than 16 MiB, a file more than 256 MiB, a list more than 4,194,304 values.

    Examples:
        >>> check_size("a red cup")
        >>> check_size("a" * 2**25)
        Traceback (most recent call last):
        multimodal.core.errors.Unreadable: the cell holds a text of 32 MiB; at most 16 MiB are read.
    """
    if isinstance(cell, Mapping) and cell.keys() == FILE_FIELDS:
        cell = cell["bytes"]
    if isinstance(cell, str):  # 4 bytes at most for a character; most texts need not be encoded
        short = len(cell) * 4 <= MAX_TEXT_BYTES
        check_bytes(len(cell) if short else len(cell.encode("utf-8", "surrogatepass")), is_text=True)
    elif isinstance(cell, bytes):
        check_bytes(len(cell), is_text=False)
    elif isinstance(cell, list) and len(cell) > MAX_CELL_VALUES:
        message = f"the cell holds a list of {len(cell):,} values; at most {MAX_CELL_VALUES:,} are read."
        raise Unreadable("list too large", message)


def check_bytes(size: int, is_text: bool) -> None:
    """Raise an ``Unreadable`` if the text, or else the file, of a cell has too many bytes."""
    what, limit = ("text", MAX_TEXT_BYTES) if is_text else ("file", MAX_FILE_BYTES)
    if size > limit:
        message = f"the cell holds a {what} of {size / 2**20:,.0f} MiB; at most {limit >> 20} MiB are read."
        raise Unreadable(f"{what} too large", message)


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
