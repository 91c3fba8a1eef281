"""The contract of a table: rows and named columns, read a cell or a column at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np


class Table(ABC):
    """Rows and named columns.

    Attributes:
        name: what people call it.
        columns: the names of the columns.
        metadata_columns: those whose cells describe a row to people (JSON values).
        base: the folder or URL that the paths in its cells are relative to; None: they are as they stand.
    """

    name: str
    columns: tuple[str, ...]
    metadata_columns: tuple[str, ...]
    base: str | None = None

    @property
    def fingerprint(self) -> str:
        """A string that changes with the table's contents, as far as it can tell."""
        return f"{self.name} {len(self)}"

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def value(self, row: int, column: str) -> Any:
        """One cell; None where the value is missing."""

    def column(self, name: str) -> Sequence[Any]:
        """All cells of a column, for keys, groups and splits: columns of small values."""
        return [self.value(row, name) for row in range(len(self))]

    def present(self, name: str) -> np.ndarray:
        """``(rows,)`` bool: which cells of a column are not missing."""
        return np.array([self.value(row, name) is not None for row in range(len(self))], dtype=bool)
