"""Tables: rows and named columns, read a cell at a time."""

from __future__ import annotations

from typing import Any, Protocol

from multimodal import datasets
from multimodal.core.errors import UsageError, suggest


class Table(Protocol):
    """Rows and named columns. ``metadata_columns`` are those whose cells describe a row to people (JSON values)."""

    name: str
    columns: tuple[str, ...]
    metadata_columns: tuple[str, ...]

    def __len__(self) -> int: ...

    def value(self, row: int, column: str) -> Any:
        """One cell; None where the value is missing."""
        ...


def open_table(name: str) -> Table:
    """The table called ``name``: one of those that need no download (``"glyphs"``).

    Raises:
        UsageError: there is none of that name.
    """
    if not isinstance(name, str) or name not in datasets.TABLES:
        raise UsageError(f"There is no table {name!r}.{suggest(str(name), list(datasets.TABLES))}")
    return datasets.load(name)
