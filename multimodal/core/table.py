"""The interface of a table: rows and named columns, read a cell or a column at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from multimodal.core.errors import Unreadable
from multimodal.core.html_table import cell_text, html_table

ROWS_SHOWN = 5  # in a notebook


class Table(ABC):
    """Rows and named columns.

    Attributes:
        name: the table's name in messages.
        columns: the names of the columns.
        metadata_columns: the columns that describe a row to a reader (JSON values).
        base: the folder or URL that the paths in cells are relative to; None: paths are used unchanged.

    Examples:
        >>> class Squares(Table):
        ...     name, columns, metadata_columns = "squares", ("n", "square"), ("n",)
        ...     def __len__(self) -> int:
        ...         return 4
        ...     def value(self, row: int, column: str) -> int:
        ...         return row if column == "n" else row**2
        >>> Squares().column("square")
        [0, 1, 4, 9]
    """

    name: str
    columns: tuple[str, ...]
    metadata_columns: tuple[str, ...]
    base: str | None = None

    def __repr__(self) -> str:
        return f"Table {self.name!r} of {len(self):,} rows: {', '.join(self.columns)}"

    def _repr_html_(self) -> str:
        """The first rows, for a notebook."""
        shown = [[self._text(row, column) for column in self.columns] for row in range(min(len(self), ROWS_SHOWN))]
        return html_table(self.columns, shown, f"Table {self.name!r} of {len(self):,} rows")

    def _text(self, row: int, column: str) -> str:
        try:
            return cell_text(self.value(row, column))
        except Unreadable:
            return "unreadable"

    @property
    def fingerprint(self) -> str:
        """A string that changes with the table's contents, as far as that can be detected."""
        return f"{self.name} {len(self)}"

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def value(self, row: int, column: str) -> Any:
        """Read one cell; None where the value is missing."""

    def column(self, name: str) -> Sequence[Any]:
        """Read all cells of a column of small values (keys, groups, splits)."""
        return [self.value(row, name) for row in range(len(self))]

    def present(self, name: str) -> np.ndarray:
        """Return which cells of a column are not missing, ``(rows,)`` bool."""
        return np.array([self.value(row, name) is not None for row in range(len(self))], dtype=bool)
