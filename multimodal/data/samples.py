"""A table seen as samples, by row number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from multimodal.core.batch import Sample
from multimodal.core.encoder import Processor
from multimodal.core.errors import Unreadable, UsageError, suggest
from multimodal.core.rejects import Reject
from multimodal.core.table import Table
from multimodal.data.schema import Row, Schema, class_names
from multimodal.data.splits import SHARES, assign_split_numbers
from multimodal.data.tables.file_cells import resolve_file_cell
from multimodal.data.tables.joined import with_joined_columns
from multimodal.data.tables.open import Access, open_table


@dataclass(frozen=True)
class Samples:
    """Map-style access to the samples of a table.

    Args:
        table: the table's name, or in Python the table; see ``open_table``.
        schema: what its columns mean.
        options: settings of the table's reader.
        access: where the rows are kept; "streamed" counts for training alone.

    Raises:
        UsageError: the schema names a column that the table does not have.
    """

    table: Any
    schema: Schema
    options: Mapping[str, Any] = field(default_factory=dict)
    access: Access = "mapped"
    _open: Table = field(init=False, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        table: Any,
        columns: Mapping[str, str | Sequence[str]],
        *,
        options: Mapping[str, Any] | None = None,
        access: Access = "mapped",
        **schema: Any,
    ) -> Samples:
        """The samples of a table by the settings that people write.

        Args:
            table, options, access: as in ``Samples``.
            columns: modality -> its column, or several.
            **schema: the other settings of ``Schema.from_settings``.
        """
        return cls(table, Schema.from_settings(columns, **schema), options or {}, access)

    def __post_init__(self) -> None:
        table = open_table(self.table, self.options, self.access)
        table = with_joined_columns(table, [column for columns in self.schema.columns.values() for column in columns])
        object.__setattr__(self, "_open", table)
        self.schema.check(table.name, table.columns)

    @property
    def name(self) -> str:
        return self._open.name

    @property
    def base(self) -> str | None:
        """The folder or URL that paths in the table are relative to."""
        return self._open.base

    @property
    def modalities(self) -> list[str]:
        return list(self.schema.columns)

    def __len__(self) -> int:
        return len(self._open)

    def __getitem__(self, row: int) -> Sample:
        """The raw values of a row; of several columns of a modality the first that has one."""
        cell = self._row(row).cell
        values = {
            m: next((v for c in columns if (v := cell(c)) is not None), None)
            for m, columns in self.schema.columns.items()
        }
        return Sample(self.key_of(row), {m: v for m, v in values.items() if v is not None}, self.group_of(row))

    def items(
        self,
        row: int,
        processors: Mapping[str, Processor],
        seed: tuple[int, ...] | None = None,
        kept: dict[tuple[int, str], Any] | None = None,
    ) -> list[Sample | Reject]:
        """A row as samples of processed items, or as a reject; see ``Schema.items``."""
        return self.schema.items(self._row(row), processors, seed, kept, self.classes)

    def _row(self, row: int) -> Row:
        return Row(row, str(row), partial(self._open.value, row), self.base)

    @cached_property
    def classes(self) -> dict[str, dict[str, int]]:
        """For each target that is the name of a class: class -> its number."""
        found = {}
        for name, column in self.schema.targets.items():
            if names := class_names(self._open.column(column)):
                found[name] = {value: number for number, value in enumerate(names)}
        return found

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of ``of`` that made it, as JSON values."""
        split = self.schema.split
        return {
            "table": self.table if isinstance(self.table, str) else self.name,
            "columns": {m: c[0] if len(c) == 1 else list(c) for m, c in self.schema.columns.items()},
            "key": self.schema.key,
            "group": self.schema.group,
            "split": split if isinstance(split, str) else None if split == SHARES else dict(split),
            "split_seed": self.schema.split_seed,
            "options": dict(self.options),
        }  # targets and negatives serve training alone

    @property
    def fingerprint(self) -> str:
        """A string that changes with the table's contents; files that its cells name are not looked at."""
        return self._open.fingerprint

    def of_column(self, modality: str, column: str) -> Samples:
        """The values of one column alone, named by their row numbers."""
        plain = replace(self.schema, columns={modality: (column,)}, key=None, targets={}, negatives={})
        return replace(self, table=self._open, schema=plain)

    def keyed_by_number(self) -> Samples:
        """The same samples, named by their row numbers."""
        return replace(self, table=self._open, schema=replace(self.schema, key=None))

    def key_of(self, row: int) -> str:
        """The row's name; its number where it has none."""
        return self.schema.key_of(self._row(row))

    def group_of(self, row: int) -> str:
        """``"=GROUP"``; a row without a group is alone, as ``"#ROW"``."""
        return self.schema.group_of(self._row(row))

    def metadata(self, row: int) -> dict[str, Any]:
        """What tells people which row it is."""
        told = {}
        for column in self._open.metadata_columns:
            with suppress(Unreadable):
                value = self._open.value(row, column)
                if value is None or isinstance(value, str | bool | int | float):  # elsewhere the column holds files
                    told[column] = value
        return told

    @cached_property
    def splits(self) -> dict[str, np.ndarray]:
        """Split name -> its rows, ascending int64."""
        split = self.schema.split
        if isinstance(split, str):
            names, numbers = _number_distinct(self._open.column(split))
        else:
            names = list(split)
            of_group = assign_split_numbers(self._groups, split, self.schema.split_seed)
            numbers = of_group[self.group_numbers] if self.schema.group else of_group
        return {name: rows for n, name in enumerate(names) if len(rows := np.flatnonzero(numbers == n))}

    @property
    def _groups(self) -> Iterable[str]:
        """The groups in the order of their numbers."""
        if self.schema.group is None:
            return (f"#{row}" for row in range(len(self)))
        return self._numbered_groups[0]

    @cached_property
    def group_numbers(self) -> np.ndarray:
        """``(rows,)`` int64: equal where the groups are."""
        return np.arange(len(self)) if self.schema.group is None else self._numbered_groups[1]

    @cached_property
    def _numbered_groups(self) -> tuple[list[str], np.ndarray]:
        assert self.schema.group is not None
        return _number_distinct(
            f"#{n}" if c is None else f"={c}" for n, c in enumerate(self._open.column(self.schema.group))
        )

    def present(self, modality: str) -> np.ndarray:
        """``(rows,)`` bool: which rows have the modality."""
        has = np.zeros(len(self), dtype=bool)
        for column in self.schema.columns[modality]:
            has |= self._open.present(column)
        return has

    def rows(self, split: str | Sequence[str]) -> np.ndarray:
        """The rows of a split, of several, or of ``all``, ascending.

        Raises:
            UsageError: there is no such split.
        """
        if split == "all":
            return np.arange(len(self))
        names = [split] if isinstance(split, str) else list(split)
        for name in names:
            if name not in self.splits:
                raise UsageError(
                    f"The table {self.name!r} has no split {name!r}.{suggest(name, [*self.splits, 'all'])}"
                )
        return np.sort(np.concatenate([self.splits[name] for name in names]))

    def values(self, modality: str, rows: np.ndarray, processor: Processor | None = None) -> Iterator[Any]:
        """The raw values of a modality in some rows, of all its columns, without the missing ones.

        If the processor that is to take them is given, cells that name files become the files; those of missing files
        are left out.
        """
        files = processor is not None and processor.reads_files
        for row in rows.tolist():
            for column in self.schema.columns[modality]:
                try:
                    value = self._open.value(row, column)
                    value = resolve_file_cell(value, self.base) if files else value
                except Exception:  # reading the row will tell
                    continue
                if value is not None:
                    yield value


def readable_rows(
    samples: Samples, rows: np.ndarray, processors: Mapping[str, Processor]
) -> tuple[dict[str, list[Any]], list[str]]:
    """The rows that can be read: modality -> their raw values, of several columns the first that has one; their groups."""
    values: dict[str, list[Any]] = {m: [] for m in processors}
    groups = []
    for row in rows.tolist():
        if any(isinstance(part, Reject) for part in samples.items(row, processors)):
            continue
        sample = samples[row]
        for modality, processor in processors.items():
            value = sample.values.get(modality)
            values[modality].append(resolve_file_cell(value, samples.base) if processor.reads_files else value)
        groups.append(sample.group)
    return values, groups


def _number_distinct(cells: Iterable[Any]) -> tuple[list[str], np.ndarray]:
    """Distinct cells, as strings, in the order of their first coming; ``(cells,)`` int64 numbers of each."""
    known: dict[str, int] = {}
    numbers = np.fromiter((known.setdefault(str(cell), len(known)) for cell in cells), dtype=np.int64)
    return list(known), numbers
