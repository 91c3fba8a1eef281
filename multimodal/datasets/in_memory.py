"""Tables whose rows are held in memory: what the small sample tables are."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from multimodal.core.table import Table


class InMemoryTable(Table):
    """A table of a list of rows.

    Args:
        name: what people call it.
        rows: at least one; each maps every column to its cell: text, a number, the bytes of a file, or None where the value
            is missing.
        metadata_columns: the columns whose cells describe a row to people (JSON values).

    Example:
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
        """One cell."""
        return self._rows[row][column]
