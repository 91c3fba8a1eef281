"""Rows of a table in memory as JSON texts, from which the same cells are read again."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

BYTES, ARRAY = "$bytes", "$array"
NUMBERS = "biuf"  # kinds of arrays that are stored: truth values, whole numbers, floating point
MOST_NESTED = 32


def row_to_json(row: Mapping[str, Any]) -> str | None:
    """Return a row as JSON; None if a cell is of a type that JSON cannot hold, such as a picture that is open.

    Texts, numbers, bytes, arrays of numbers, and lists and mappings of these are stored.

    Args:
        row: column -> cell.

    Examples:
        >>> row_to_json({"sku": "cup-1", "photo": b"..."})
        '{"sku": "cup-1", "photo": {"$bytes": "Li4u"}}'
        >>> row_to_json({"sku": object()}) is None
        True
    """
    try:
        return json.dumps({name: _to_json(cell, 0) for name, cell in row.items()})
    except (TypeError, ValueError):
        return None


def _to_json(cell: Any, depth: int) -> Any:
    if depth > MOST_NESTED:
        raise ValueError("nested too deeply")
    if cell is None or type(cell) in (bool, int, float, str):
        return cell
    if isinstance(cell, np.generic):
        return _to_json(cell.item(), depth + 1)
    if isinstance(cell, bytes):
        return {BYTES: base64.b64encode(cell).decode()}
    if isinstance(cell, np.ndarray) and cell.dtype.kind in NUMBERS:
        data = base64.b64encode(np.ascontiguousarray(cell).tobytes()).decode()
        return {ARRAY: data, "dtype": cell.dtype.str, "shape": list(cell.shape)}
    if isinstance(cell, list | tuple):
        return [_to_json(each, depth + 1) for each in cell]
    if isinstance(cell, dict) and all(type(name) is str and not name.startswith("$") for name in cell):
        return {name: _to_json(each, depth + 1) for name, each in cell.items()}
    raise TypeError(f"a cell of the type {type(cell).__name__} is not stored")


def row_of_json(text: str) -> dict[str, Any]:
    """Return the row that ``row_to_json`` wrote.

    Args:
        text: the JSON.

    Raises:
        ValueError: it is not such a row.

    Examples:
        >>> row_of_json('{"sku": "cup-1", "photo": {"$bytes": "Li4u"}}')
        {'sku': 'cup-1', 'photo': b'...'}
    """
    try:
        row = json.loads(text)
        if not isinstance(row, dict):
            raise ValueError("not a row")
        return {name: _of_json(cell) for name, cell in row.items()}
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not a row ({error})") from error


def _of_json(cell: Any) -> Any:
    if isinstance(cell, list):
        return [_of_json(each) for each in cell]
    if not isinstance(cell, dict):
        return cell
    if BYTES in cell:
        return base64.b64decode(cell[BYTES], validate=True)
    if ARRAY in cell:
        dtype = np.dtype(cell["dtype"])
        if dtype.kind not in NUMBERS:
            raise ValueError("not an array of numbers")
        return np.frombuffer(base64.b64decode(cell[ARRAY], validate=True), dtype).reshape(cell["shape"]).copy()
    return {name: _of_json(each) for name, each in cell.items()}
