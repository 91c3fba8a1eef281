"""Cells of tables that are made of files: values of any type as JSON, and what is said of those that cannot be read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from multimodal.core.errors import Unreadable

CELL_FIELDS = ("json", "bytes", "path")  # the fields of a cell that is a value as JSON, or a file
FILE_FIELDS = {"bytes", "path"}
UNREADABLE_MARK = "!"  # no JSON begins with it


def encode_json_cell(value: Any) -> str:
    """A value as JSON, which Arrow stores whatever the types of the others are."""
    return json.dumps(value)


def unreadable_cell(reason: str, message: str) -> str:
    """What stands in the place of a value that cannot be read."""
    return UNREADABLE_MARK + json.dumps([reason, message])


def decode_json_cell(text: str) -> Any:
    """The value.

    Raises:
        Unreadable: there is none that can be read.
    """
    if text.startswith(UNREADABLE_MARK):
        reason, message = json.loads(text[1:])
        raise Unreadable(reason, message)
    return json.loads(text)


def raw_value(cell: Any) -> Any:
    """A cell as processors take it: the bytes or path of a file, None for what is missing, else the value.

    Raises:
        Unreadable: the value cannot be read.
    """
    cell = unpack_cell(cell)
    if isinstance(cell, Mapping) and cell.keys() == FILE_FIELDS:
        return cell["path"] if cell["bytes"] is None else cell["bytes"]
    return None if isinstance(cell, float) and math.isnan(cell) else cell


def unpack_cell(cell: Any) -> Any:
    """A cell of a tar as those of other tables are: a value, or a file as a mapping of ``path`` and ``bytes``.

    Raises:
        Unreadable: the value cannot be read.
    """
    if isinstance(cell, Mapping) and cell.keys() == set(CELL_FIELDS):
        return (
            {"path": cell["path"], "bytes": cell["bytes"]} if cell["json"] is None else decode_json_cell(cell["json"])
        )
    return cell


def decode_or_none(text: str) -> Any:
    """The value that ``decode_json_cell`` makes; None where it cannot be read."""
    return None if text.startswith(UNREADABLE_MARK) else json.loads(text)


def is_number(text: str) -> bool:
    """Whether a text is one that Python reads as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
