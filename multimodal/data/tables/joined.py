"""Several columns as one value: ``price+colour`` is a mapping of both, for encoders of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from multimodal.core.table import Table

JOIN_SIGN = "+"


def split_joined_name(column: str, columns: Iterable[str]) -> tuple[str, ...]:
    """Return the columns that a name joins; a name that is itself in ``columns`` is not split."""
    return (column,) if column in columns else tuple(part.strip() for part in column.split(JOIN_SIGN))


def join_cells(cell: Callable[[str], Any], parts: Iterable[str]) -> dict[str, Any] | None:
    """Return column -> value for one row, without missing values; None if all are missing."""
    return {part: value for part in parts if (value := cell(part)) is not None} or None


class JoinedColumns(Table):
    """A table with additional columns that join some of its columns.

    Args:
        table: the table whose columns are joined.
        joins: name of an additional column -> the columns that it joins.

    Examples:
        >>> from multimodal.data.tables.open import open_table
        >>> shop = open_table([{"price": 2, "colour": "red"}])
        >>> JoinedColumns(shop, {"price+colour": ("price", "colour")}).value(0, "price+colour")
        {'price': 2, 'colour': 'red'}
    """

    def __init__(self, table: Table, joins: dict[str, tuple[str, ...]]) -> None:
        self._table, self._joins = table, joins
        self.name, self.base, self.metadata_columns = table.name, table.base, table.metadata_columns
        self.columns = (*table.columns, *joins)

    @property
    def fingerprint(self) -> str:
        return self._table.fingerprint

    def __len__(self) -> int:
        return len(self._table)

    def value(self, row: int, column: str) -> Any:
        if column in self._joins:
            return join_cells(lambda part: self._table.value(row, part), self._joins[column])
        return self._table.value(row, column)

    def column(self, name: str) -> Any:
        return super().column(name) if name in self._joins else self._table.column(name)

    def present(self, name: str) -> np.ndarray:
        if name in self._joins:
            return np.any([self._table.present(part) for part in self._joins[name]], axis=0)
        return self._table.present(name)


def with_joined_columns(table: Table, columns: Iterable[str]) -> Table:
    """Return the table with the joined columns among the given names; names of unknown columns are ignored."""
    joins = {c: parts for c in columns if len(parts := split_joined_name(c, table.columns)) > 1}
    joins = {c: parts for c, parts in joins.items() if set(parts) <= set(table.columns)}
    return JoinedColumns(table, joins) if joins else table
