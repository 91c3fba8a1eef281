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
from multimodal.data.schema import Columns, meaning_of, names_of_classes
from multimodal.data.splits import dealt_numbers
from multimodal.data.tables.file_cells import resolve
from multimodal.data.tables.joined import with_joined
from multimodal.data.tables.open import Access, open_table


@dataclass(frozen=True)
class Samples:
    """Map-style access to the samples of a table.

    Args:
        table: the table's name, or in Python the table; see ``open_table``.
        columns: modality -> the column that holds it, or several that are alternatives; ``price+colour`` is one value of
            both, a mapping.
        key: the column that names a row; None: the row number.
        group: the column whose equal values make rows positives of each other; None: every row is a group of its own.
        split: the column that names each row's split, or the share of each split (``{train: 0.9, test: 0.1}``) in which
            groups are dealt at random. None: 80 % train, 10 % validation, 10 % test.
        split_seed: of that dealing.
        options: settings of the table's reader.
        access: where the rows are kept; "streamed" counts for training alone.
        targets: name -> the column of what is known of a row. A column with values that are no numbers holds the names of
            classes; their numbers are their places in alphabetical order.
        negatives: modality -> the column, or columns, of values that are hard to tell from the row's and do not match it.
    """

    table: Any
    columns: Mapping[str, str | Sequence[str]]
    key: str | None = None
    group: str | None = None
    split: str | Mapping[str, float] | None = None
    split_seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    access: Access = "mapped"
    targets: Mapping[str, str] = field(default_factory=dict)
    negatives: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    _open: Table = field(init=False, repr=False, compare=False)
    meaning: Columns = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        meaning = meaning_of(
            self.columns, self.key, self.group, self.split, self.split_seed, self.targets, self.negatives
        )
        object.__setattr__(self, "meaning", meaning)
        table = open_table(self.table, self.options, self.access)
        table = with_joined(table, [column for columns in meaning.columns.values() for column in columns])
        object.__setattr__(self, "_open", table)
        self.meaning.check(table.name, table.columns)

    @property
    def name(self) -> str:
        return self._open.name

    @property
    def base(self) -> str | None:
        """The folder or URL that paths in the table are relative to."""
        return self._open.base

    @property
    def modalities(self) -> list[str]:
        return list(self.columns)

    def __len__(self) -> int:
        return len(self._open)

    def __getitem__(self, row: int) -> Sample:
        """The raw values of a row; of several columns of a modality the first that has one."""
        cell = partial(self._open.value, row)
        values = {
            m: next((v for c in columns if (v := cell(c)) is not None), None)
            for m, columns in self.meaning.columns.items()
        }
        return Sample(self.key_of(row), {m: v for m, v in values.items() if v is not None}, self.group_of(row))

    def items(
        self,
        row: int,
        processors: Mapping[str, Processor],
        seed: tuple[int, ...] | None = None,
        kept: dict[tuple[int, str], Any] | None = None,
    ) -> list[Sample | Reject]:
        """A row as samples of processed items, or as a reject; see ``Columns.items``."""
        cell = partial(self._open.value, row)
        return self.meaning.items(cell, str(row), row, processors, self.base, seed, kept, self.classes)

    @cached_property
    def classes(self) -> dict[str, dict[str, int]]:
        """For each target that is the name of a class: class -> its number."""
        found = {}
        for name, column in self.targets.items():
            if names := names_of_classes(self._open.column(column)):
                found[name] = {value: number for number, value in enumerate(names)}
        return found

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments that made it, as JSON values."""
        return {
            "table": self.table if isinstance(self.table, str) else self.name,
            "columns": {m: c if isinstance(c, str) else list(c) for m, c in self.columns.items()},
            "key": self.key,
            "group": self.group,
            "split": dict(self.split) if isinstance(self.split, Mapping) else self.split,
            "split_seed": self.split_seed,
            "options": dict(self.options),
        }  # targets and negatives serve training alone

    @property
    def fingerprint(self) -> str:
        """A string that changes with the table's contents; files that its cells name are not looked at."""
        return self._open.fingerprint

    def of_column(self, modality: str, column: str) -> Samples:
        """The values of one column alone, named by their row numbers."""
        plain = {"targets": {}, "negatives": {}, "key": None}
        return replace(self, table=self._open, columns={modality: column}, **plain)

    def keyed_by_number(self) -> Samples:
        """The same samples, named by their row numbers."""
        return replace(self, table=self._open, key=None)

    def key_of(self, row: int) -> str:
        """The row's name; its number where it has none."""
        return self.meaning.key_of(partial(self._open.value, row), str(row))

    def group_of(self, row: int) -> str:
        """``"=GROUP"``; a row without a group is alone, as ``"#ROW"``."""
        return self.meaning.group_of(partial(self._open.value, row), str(row))

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
        split = self.meaning.split
        if isinstance(split, str):
            names, numbers = _numbered(self._open.column(split))
        else:
            names = list(split)
            of_group = dealt_numbers(self._groups, split, self.split_seed)
            numbers = of_group[self.group_numbers] if self.group else of_group
        return {name: rows for n, name in enumerate(names) if len(rows := np.flatnonzero(numbers == n))}

    @property
    def _groups(self) -> Iterable[str]:
        """The groups in the order of their numbers."""
        if self.group is None:
            return (f"#{row}" for row in range(len(self)))
        return self._numbered_groups[0]

    @cached_property
    def group_numbers(self) -> np.ndarray:
        """``(rows,)`` int64: equal where the groups are."""
        return np.arange(len(self)) if self.group is None else self._numbered_groups[1]

    @cached_property
    def _numbered_groups(self) -> tuple[list[str], np.ndarray]:
        assert self.group is not None
        return _numbered(f"#{n}" if c is None else f"={c}" for n, c in enumerate(self._open.column(self.group)))

    def present(self, modality: str) -> np.ndarray:
        """``(rows,)`` bool: which rows have the modality."""
        has = np.zeros(len(self), dtype=bool)
        for column in self.meaning.columns[modality]:
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
            for column in self.meaning.columns[modality]:
                try:
                    value = self._open.value(row, column)
                    value = resolve(value, self.base) if files else value
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
            values[modality].append(resolve(value, samples.base) if processor.reads_files else value)
        groups.append(sample.group)
    return values, groups


def _numbered(cells: Iterable[Any]) -> tuple[list[str], np.ndarray]:
    """Distinct cells, as strings, in the order of their first coming; ``(cells,)`` int64 numbers of each."""
    known: dict[str, int] = {}
    numbers = np.fromiter((known.setdefault(str(cell), len(known)) for cell in cells), dtype=np.int64)
    return list(known), numbers
