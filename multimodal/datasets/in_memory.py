"""Tables whose rows are in memory, such as the small sample tables."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from multimodal.core.table import Table


class InMemoryTable(Table):
    """A table made from a list of rows.

    Args:
        name: name of the table in reports.
        rows: at least one row; each maps every column to its cell: text, a number, the bytes of a file, or None if the
            value is missing.
        metadata_columns: the columns whose cells describe a row to users (JSON values).

    Examples:
        >>> table = InMemoryTable("shop", [{"id": "s-1", "title": "a red cup"}], ("id",))
        >>> len(table), table.columns, table.value(0, "title")
        (1, ('id', 'title'), 'a red cup')
    """

    def __init__(self, name: str, rows: list[dict[str, Any]], metadata_columns: tuple[str, ...] = ()) -> None:
        self.name, self.columns, self.metadata_columns = name, tuple(rows[0]), metadata_columns
        self._rows = rows

    @property
    def fingerprint(self) -> str:
        """The name, the number of rows and a hash of all cells."""
        digest = blake2b(digest_size=16)
        for row in self._rows:
            digest.update(repr(row).encode())
        return f"{self.name} {len(self)} {digest.hexdigest()}"

    def __len__(self) -> int:
        return len(self._rows)

    def value(self, row: int, column: str) -> Any:
        """Return one cell; None if the value is missing."""
        return self._rows[row][column]
