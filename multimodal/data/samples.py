"""A table seen as samples: which column is which modality, what names a row, what groups rows, what splits them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from multimodal.core.batch import Sample
from multimodal.core.errors import MultimodalError, UsageError, suggest
from multimodal.data.table import Table, open_table


@dataclass(frozen=True)
class Samples:
    """Map-style access to the samples of a table.

    Args:
        table: the table's name.
        columns: modality -> the column that holds it.
        key: the column that names a row; None: the row number.
        group: the column whose equal values make rows positives of each other; None: every row is a group of its own.
        split: the column that names each row's split; None: there is one split, ``all``.
    """

    table: str
    columns: Mapping[str, str]
    key: str | None = None
    group: str | None = None
    split: str | None = None
    _open: Table = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.columns:
            raise UsageError("The data need columns: a mapping like {image: picture, text: title}.")
        table = open_table(self.table)
        object.__setattr__(self, "_open", table)
        named = {f"columns.{m}": c for m, c in self.columns.items()}
        named |= {k: c for k in ("key", "group", "split") if (c := getattr(self, k)) is not None}
        for option, column in named.items():
            if column not in table.columns:
                raise UsageError(
                    f"{option}: the table {self.table!r} has no column {column!r}.{suggest(column, list(table.columns))}"
                )

    @property
    def modalities(self) -> list[str]:
        return list(self.columns)

    def __len__(self) -> int:
        return len(self._open)

    def __getitem__(self, row: int) -> Sample:
        return self.read(row, self.modalities)

    def read(self, row: int, modalities: list[str]) -> Sample:
        """The sample of a row with the values of some modalities, those that the row has."""
        values = {m: self._open.value(row, self.columns[m]) for m in modalities}
        return Sample(self.key_of(row), {m: v for m, v in values.items() if v is not None}, self.group_of(row))

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments that made it, as JSON values."""
        names = ("table", "columns", "key", "group", "split")
        return {name: getattr(self, name) for name in names} | {"columns": dict(self.columns)}

    def key_of(self, row: int) -> str:
        """The row's name; its number where it has none."""
        key = None if self.key is None else self._open.value(row, self.key)
        return str(row) if key is None else str(key)

    def group_of(self, row: int) -> str:
        """``"=GROUP"``; a row without a group is alone, as ``"#ROW"``."""
        group = None if self.group is None else self._open.value(row, self.group)
        return f"#{row}" if group is None else f"={group}"

    def metadata(self, row: int) -> dict[str, Any]:
        """What tells people which row it is."""
        return {column: self._open.value(row, column) for column in self._open.metadata_columns}

    @cached_property
    def splits(self) -> dict[str, np.ndarray]:
        """Split name -> its rows, ascending int64."""
        if self.split is None:
            return {"all": np.arange(len(self))}
        names = np.array([str(self._open.value(row, self.split)) for row in range(len(self))])
        return {str(name): np.flatnonzero(names == name) for name in np.unique(names)}

    def rows(self, split: str) -> np.ndarray:
        """The rows of a split, or of ``all``.

        Raises:
            UsageError: there is no such split.
        """
        if split == "all":
            return np.arange(len(self))
        if split not in self.splits:
            raise UsageError(f"The table {self.table!r} has no split {split!r}.{suggest(split, [*self.splits, 'all'])}")
        return self.splits[split]

    def values(self, modality: str, rows: np.ndarray) -> Iterator[Any]:
        """The raw values of a modality in some rows, without the missing ones."""
        for row in rows.tolist():
            value = self._open.value(row, self.columns[modality])
            if value is not None:
                yield value

    def failed(self, row: int, modality: str, error: MultimodalError) -> MultimodalError:
        """``error`` with the place it arose at."""
        where = f"table {self.table!r}, row {row} (key {self.key_of(row)}), column {self.columns[modality]!r}"
        return MultimodalError(f"{where}: {error}")
