"""Whole numbers that a column cannot hold exactly: they are an error, as they would become other rows' keys."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute

from multimodal.core.errors import shown

pc: Any = pyarrow.compute  # its functions are made when it is imported
MAX_EXACT = 2**53  # of the whole numbers up to it, a float64 holds each
INT64 = range(-(2**63), 2**63)
LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
Place = tuple[str, ...]  # of a value in a row: its column, and the names of the fields in it


class ChangedNumber(ValueError):
    """A column cannot hold a whole number.

    Args:
        place: where in the row the number is.
        number: the number.
        where: the row, for the message.

    Examples:
        >>> print(ChangedNumber(("id",), 2**64))
        the whole number 18446744073709551616 in the column 'id' has more than 64 bits; write it as text
    """

    def __init__(self, place: Place, number: int, where: str = "") -> None:
        why = "has more than 64 bits" if number not in INT64 else "is next to fractions, where it would be rounded"
        column = ".".join(place)
        super().__init__(f"the whole number {shown(number)} in the column {column!r}{where} {why}; write it as text")


def places_of_large_floats(table: pa.Table) -> set[Place]:
    """Return where a table has floats that are too large to be any whole number exactly.

    Examples:
        >>> sorted(places_of_large_floats(pa.table({"id": [1e17, 0.5], "price": [1.0, 2.0]})))
        [('id',)]
    """
    named = zip(table.column_names, table.columns, strict=True)
    return {place for name, column in named for place in _places_of_large_floats(column, (name,))}


def _places_of_large_floats(column: Any, place: Place) -> Iterator[Place]:
    kind = column.type
    if pa.types.is_floating(kind):
        if pc.any(pc.greater_equal(pc.abs(column), float(MAX_EXACT))).as_py():
            yield place
    elif pa.types.is_struct(kind):
        for n in range(kind.num_fields):
            yield from _places_of_large_floats(pc.struct_field(column, [n]), (*place, kind.field(n).name))
    elif any(is_kind(kind) for is_kind in LISTS):
        yield from _places_of_large_floats(pc.list_flatten(column), place)


def check_json(
    file: IO[bytes], name: str, places: set[Place] | None, encoding: str = "utf-8", field: str | None = None
) -> None:
    """Check that a file has no whole number that was read as another one.

    Args:
        file: JSON Lines or JSON.
        name: its name, for the error.
        places: where numbers were read as floats, which hold whole numbers to 2^53; None: nowhere, they are of 64 bits.
        encoding: of the file.
        field: the field with the rows, if the file is one object.

    Raises:
        ChangedNumber: there is such a number; the message names the row.
    """
    for row, cells in enumerate(_json_rows(file, encoding, field)):
        for place, number in _leaves(cells):
            if isinstance(number, int) and (
                number not in INT64 if places is None else abs(number) > MAX_EXACT and place in places
            ):
                raise ChangedNumber(place, number, f" (row {row} of {name})")


def find_changed_number(columns: Mapping[str, Iterable[Any]]) -> ChangedNumber | None:
    """Return the error for the first whole number that a column in memory cannot hold; None: there is no such number."""
    for name, cells in columns.items():
        leaves = list(_leaves({name: list(cells)}))
        of_floats = {place for place, leaf in leaves if isinstance(leaf, float)}
        for place, number in leaves:
            if isinstance(number, int) and (number not in INT64 or (abs(number) > MAX_EXACT and place in of_floats)):
                return ChangedNumber(place, number)
    return None


def _leaves(row: Mapping[str, Any]) -> Iterator[tuple[Place, Any]]:
    """Yield what is in the lists and mappings of a row, at any depth, and where."""
    waiting: list[tuple[Place, Any]] = [((), row)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += [((*place, name), inner) for name, inner in reversed(list(value.items()))]
        elif isinstance(value, list | tuple):
            waiting += [(place, inner) for inner in reversed(value)]
        else:
            yield place, value


def _json_rows(file: IO[bytes], encoding: str, field: str | None) -> Iterator[Mapping[str, Any]]:
    first = file.readline().decode("utf-8-sig" if encoding == "utf-8" else encoding)
    is_whole = False
    try:
        rows = json.loads(first)
    except ValueError:  # an object or a list of several lines
        rows, is_whole = json.loads(first + file.read().decode(encoding)), True
    if field is not None:
        rows = rows[field]
    yield from (row for row in (rows if isinstance(rows, list) else [rows]) if isinstance(row, Mapping))
    for line in () if is_whole else file:
        if line.strip() and isinstance(row := json.loads(line.decode(encoding)), Mapping):
            yield row
