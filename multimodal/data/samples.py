"""Samples of a table, by row number."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from multimodal.core.batch import Sample
from multimodal.core.encoder import Processor
from multimodal.core.errors import Unreadable, UsageError, suggest
from multimodal.core.progress import progress
from multimodal.core.rejects import Reject
from multimodal.core.table import Table
from multimodal.data.approved import Approved, joined_labels
from multimodal.data.schema import Row, Schema
from multimodal.data.splits import DEFAULT_SHARES, assign_split_numbers
from multimodal.data.tables.file_cells import resolve_file_cell
from multimodal.data.tables.joined import with_joined_columns
from multimodal.data.tables.open import Access, open_table
from multimodal.data.targets import class_names


@dataclass(frozen=True)
class Samples:
    """Map-style access to the samples of a table.

    Args:
        table: name of the table, or the table itself; see ``open_table``.
        schema: meaning of the columns.
        options: settings of the table's reader.
        access: where the rows are stored; see ``open_table``. "streamed" applies to training only.
        class_names: target -> the names of its classes, in order; other names are not known. A target that is not in it has
            the names in all rows.
        approved: a table of suspected faults, see ``multimodal.data.approved``: rows that are approved to be one item are one
            group, in one split; mismatched ones are left out of all splits. None: no faults are known.

    Raises:
        UsageError: the table has no rows, or not an approved key, or not a column that the schema names.

    Examples:
        >>> rows = [{"title": "a red cup", "product": "cup"}, {"title": "a cup", "product": "cup"}]
        >>> samples = Samples.of(rows, {"text": "title"}, group="product")
        >>> len(samples), samples[1]
        (2, Sample(key='1', values={'text': 'a cup'}, group='=cup', targets={}, negatives=()))
    """

    table: Any
    schema: Schema
    options: Mapping[str, Any] = field(default_factory=dict)
    access: Access = "mapped"
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    approved: str | os.PathLike[str] | Approved | None = None
    _table: Table = field(init=False, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        table: Any,
        columns: Mapping[str, str | Sequence[str]],
        *,
        options: Mapping[str, Any] | None = None,
        access: Access = "mapped",
        approved: str | os.PathLike[str] | None = None,
        **schema: Any,
    ) -> Samples:
        """Create samples from the settings of a configuration.

        Args:
            table: see ``Samples``.
            columns: modality -> its column, or several columns.
            options: see ``Samples``.
            access: see ``Samples``.
            approved: see ``Samples``.
            **schema: the other settings of ``Schema.from_settings``.
        """
        return cls(table, Schema.from_settings(columns, **schema), options or {}, access, approved=approved)

    def __post_init__(self) -> None:
        if isinstance(self.table, os.PathLike):
            object.__setattr__(self, "table", os.fspath(self.table))
        table = open_table(self.table, self.options, self.access)
        if not len(table):
            raise UsageError(f"The table {table.name!r} has no rows.")
        table = with_joined_columns(table, [column for columns in self.schema.columns.values() for column in columns])
        object.__setattr__(self, "_table", table)
        self.schema.check(table.name, table.columns)
        if self.approved is not None and not isinstance(self.approved, Approved):
            self._join_approved(Path(self.approved))

    def _join_approved(self, path: Path) -> None:
        approved = Approved.read(path, (self.key_of(row) for row in range(len(self))))
        object.__setattr__(self, "approved", approved)
        same = [[self.group_of(row) for row in rows] for rows in approved.same]
        labels = list(dict.fromkeys(label for several in same for label in several))
        share_of = dict.fromkeys(labels, 1.0)
        if not isinstance(split := self.schema.split, str):
            shares = list(split.values())
            numbers = assign_split_numbers(labels, split, self.schema.split_seed)
            share_of = {label: shares[number] for label, number in zip(labels, numbers.tolist(), strict=True)}
        object.__setattr__(self, "schema", replace(self.schema, joined=joined_labels(same, share_of)))

    def __repr__(self) -> str:
        split = self.schema.split
        shares = split if isinstance(split, str) else ", ".join(f"{name} {share:g}" for name, share in split.items())
        named = (
            f"{name} {column}" for name, column in (("key", self.schema.key), ("group", self.schema.group)) if column
        )
        settings = "; ".join([self.schema.columns_text, *named, f"split {shares}"])
        return f"Samples of {len(self):,} rows of {self.name!r}: {settings}"

    @property
    def name(self) -> str:
        return self._table.name

    @property
    def base(self) -> str | None:
        """The folder or URL that paths in the table are relative to; None: paths are used as given."""
        return self._table.base

    @property
    def modalities(self) -> list[str]:
        return list(self.schema.columns)

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, row: int) -> Sample:
        """Return a row with raw values; for alternative columns, the first value that is not missing."""
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
        cache: dict[tuple[int, str], Any] | None = None,
    ) -> list[Sample | Reject]:
        """Convert a row to samples of processed items, or to a reject; see ``Schema.items``.

        Args:
            row: row number.
            processors: modality -> its processor, for the modalities to read.
            seed: seed of training, in which a column is drawn and items are augmented; None: evaluation.
            cache: items by row number and "modality column", which are reused from and added to this mapping.
        """
        return self.schema.items(self._row(row), processors, seed, cache, self.classes)

    def cell(self, row: int, column: str) -> Any:
        """Return the raw value of a cell; None: missing."""
        return self._table.value(row, column)

    def _row(self, row: int) -> Row:
        return Row(row, str(row), partial(self._table.value, row), self.base)

    @cached_property
    def classes(self) -> dict[str, dict[str, int]]:
        """For each target with class names: class name -> class index."""
        classes = {}
        for name, column in self.schema.targets.items():
            given = self.class_names.get(name)
            if names := class_names(self._table.column(column)) if given is None else given:
                classes[name] = {value: number for number, value in enumerate(names)}
        return classes

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of ``of`` that create the same samples, as JSON values."""
        split = self.schema.split
        return {
            "table": self.table if isinstance(self.table, str) else self.name,
            "columns": {m: c[0] if len(c) == 1 else list(c) for m, c in self.schema.columns.items()},
            "key": self.schema.key,
            "group": self.schema.group,
            "split": split if isinstance(split, str) else None if split == DEFAULT_SHARES else dict(split),
            "split_seed": self.schema.split_seed,
            "options": dict(self.options),
            **({"approved": self.approved.path} if isinstance(self.approved, Approved) else {}),
        }  # targets and negatives are used in training only

    @property
    def fingerprint(self) -> str:
        """A string that changes with the table's contents, but not with the files that its cells name."""
        return self._table.fingerprint

    def with_class_names(self, names: Mapping[str, Sequence[str]]) -> Samples:
        """Return the same samples with other names of classes, see ``Samples``."""
        return replace(self, table=self._table, class_names=names)

    def target_cells(self, name: str, split: str | Sequence[str] = "all") -> Iterator[Any]:
        """Read the cells of a target in a split; None: missing."""
        return self.target_cells_of(name, self.rows(split))

    def target_cells_of(self, name: str, rows: np.ndarray) -> Iterator[Any]:
        """Read the cells of a target in rows ``(r,)``; None: missing."""
        cells = self._table.column(self.schema.targets[name])
        return (cells[row] for row in rows.tolist())

    def without_targets(self) -> Samples:
        """Return the same samples without targets and hard negatives."""
        return replace(self, table=self._table, schema=replace(self.schema, targets={}, negatives={}))

    def single_column(self, modality: str, column: str) -> Samples:
        """Return samples with the values of one column only; their keys are the row numbers."""
        plain = replace(self.schema, columns={modality: (column,)}, key=None, targets={}, negatives={})
        return replace(self, table=self._table, schema=plain)

    def keyed_by_number(self) -> Samples:
        """Return the same samples with the row numbers as keys."""
        return replace(self, table=self._table, schema=replace(self.schema, key=None))

    def key_of(self, row: int) -> str:
        """Return the row's key; its number if it has no key."""
        return self.schema.key_of(self._row(row))

    def group_of(self, row: int) -> str:
        """Return the row's group, ``"=GROUP"``; a row without a group has its own, ``"#ROW"``."""
        return self.schema.group_of(self._row(row))

    @cached_property
    def rows_by_key(self) -> dict[str, int]:
        """Key -> the first row that has it."""
        return {self.key_of(row): row for row in reversed(range(len(self)))}

    def values_of(self, key: str, processors: Mapping[str, Processor]) -> dict[str, Any]:
        """Return the raw values of the row with a key, such as a hit's, by modality, as ``explain`` and ``encode`` take them.

        Args:
            key: the key; of a table without keys, the row's number.
            processors: modality -> its processor; where it reads files, names of files are resolved.

        Raises:
            UsageError: no row has the key.
            Unreadable: a cell names a file that does not exist.

        Examples:
            >>> samples = Samples.of([{"title": "a red cup", "sku": "s-1"}], {"text": "title"}, key="sku")
            >>> samples.values_of("s-1", {})
            {'text': 'a red cup'}
        """
        row = self.rows_by_key.get(key)
        if row is None:
            raise UsageError(f"No row of the table {self.name!r} has the key {key!r}.")
        reads_files = {m for m, processor in processors.items() if processor.reads_files}
        values = self[row].values
        return {m: resolve_file_cell(v, self.base) if m in reads_files else v for m, v in values.items()}

    def metadata(self, row: int, columns: Sequence[str] | None = None) -> dict[str, Any]:
        """Return the cells that describe the row to users, by column; files and lists are left out.

        Args:
            row: row number.
            columns: the columns; None: those that the table names.
        """
        described = {}
        for column in self._table.metadata_columns if columns is None else columns:
            with suppress(Unreadable):
                value = self._table.value(row, column)
                if value is None or isinstance(value, str | bool | int | float):  # other values are files
                    described[column] = value
        return described

    def check_columns(self, columns: Iterable[str]) -> None:
        """Raise a ``UsageError`` that names the known columns if the table does not have all of these."""
        for column in columns:
            if column not in self._table.columns:
                known = suggest(column, list(self._table.columns))
                raise UsageError(f"The table {self.name!r} has no column {column!r}.{known}")

    def texts(self, column: str, rows: Iterable[int]) -> list[str | None]:
        """Return the cells of any column of the table as text; a missing one is None.

        Args:
            column: the column.
            rows: row numbers.

        Raises:
            UsageError: the table has no such column.
        """
        self.check_columns([column])
        cells = (self._table.value(row, column) for row in rows)
        return [None if cell is None else str(cell) for cell in cells]

    @cached_property
    def splits(self) -> dict[str, np.ndarray]:
        """Split -> its rows, ascending int64."""
        split = self.schema.split
        if isinstance(split, str):
            names, numbers = _number_distinct(split, self._table.column(split))
            sizes = np.bincount(numbers)
            for same in map(list, self._approved.same):  # in the smallest of their splits: those measured stay so
                numbers[same] = min(numbers[same].tolist(), key=lambda number: (sizes[number], number))
        else:
            names = list(split)
            split_of_group = assign_split_numbers(self._groups, split, self.schema.split_seed)
            numbers = split_of_group[self.group_numbers]
        numbers[self._left_out] = -1
        return {name: rows for n, name in enumerate(names) if len(rows := np.flatnonzero(numbers == n))}

    @property
    def _approved(self) -> Approved:
        return self.approved if isinstance(self.approved, Approved) else Approved("")

    @property
    def _left_out(self) -> list[int]:
        return sorted(self._approved.left_out)

    @property
    def _groups(self) -> Iterable[str]:
        """The names of the groups, in the order of their numbers."""
        if self._each_its_own:
            return (f"#{row}" for row in range(len(self)))
        return self._numbered_groups[0]

    @property
    def _each_its_own(self) -> bool:
        """Whether every row has its own group."""
        return self.schema.group is None and not self.schema.joined

    @cached_property
    def group_numbers(self) -> np.ndarray:
        """``(rows,)`` int64: number of each row's group."""
        return np.arange(len(self)) if self._each_its_own else self._numbered_groups[1]

    @cached_property
    def _numbered_groups(self) -> tuple[list[str], np.ndarray]:
        column, joined = self.schema.group, self.schema.joined
        cells = enumerate([None] * len(self) if column is None else self._table.column(column))
        labels = (f"#{n}" if cell is None else f"={cell}" for n, cell in cells)
        return _number_distinct(column or "key", (joined.get(label, label) for label in labels))

    def present(self, modality: str) -> np.ndarray:
        """Return which rows have the modality, ``(rows,)`` bool."""
        mask = np.zeros(len(self), dtype=bool)
        for column in self.schema.columns[modality]:
            mask |= self._table.present(column)
        return mask

    def rows(self, split: str | Sequence[str]) -> np.ndarray:
        """Return the row numbers of a split, of several splits, or of ``all``, ascending int64, without those left out.

        Raises:
            UsageError: there is no such split.
        """
        if split == "all":
            rows = np.arange(len(self))
            return np.delete(rows, self._left_out) if self._left_out else rows
        names = [split] if isinstance(split, str) else list(split)
        for name in names:
            if name not in self.splits:
                known = suggest(name, [*self.splits, "all"])
                raise UsageError(f"The table {self.name!r} has no split {name!r}.{known}{self._why_empty(name)}")
        return np.sort(np.concatenate([self.splits[name] for name in names]))

    def _why_empty(self, split: str) -> str:
        """Say for an error that chance gave a split no row, if it is one of the shares."""
        if isinstance(self.schema.split, str) or split not in self.schema.split:
            return ""
        shares = ", ".join(f"{name} {share:g}" for name, share in self.schema.split.items())
        return f" The rows ({len(self):,}) were assigned to splits at random, by the shares {shares}."

    def values(self, modality: str, rows: np.ndarray, processor: Processor | None = None) -> Iterator[Any]:
        """Read the raw values of a modality from all its columns, without missing and unreadable values.

        Args:
            modality: the modality.
            rows: ``(r,)`` row numbers.
            processor: the processor that will receive the values. If it reads files, cells that name files are resolved to
                the files.
        """
        files = processor is not None and processor.reads_files
        for row in rows.tolist():
            for column in self.schema.columns[modality]:
                try:
                    value = self._table.value(row, column)
                    value = resolve_file_cell(value, self.base) if files else value
                except Exception:  # reported when the row is read for a batch
                    continue
                if value is not None:
                    yield value


def readable_rows(
    samples: Samples, rows: np.ndarray, processors: Mapping[str, Processor]
) -> tuple[dict[str, list[Any]], list[str]]:
    """Read the raw values and groups of the rows that can be read.

    Args:
        samples: the samples.
        rows: ``(r,)`` row numbers.
        processors: modality -> its processor. Rows with a value that a processor rejects are left out.

    Returns:
        Modality -> the values of the readable rows (for alternative columns, the first value; None: missing), and the
        groups of these rows.
    """
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


def _number_distinct(column: str, cells: Iterable[Any]) -> tuple[list[str], np.ndarray]:
    """Number distinct cells, as strings, by first occurrence: the distinct strings, and ``(cells,)`` int64 numbers."""
    number_of: dict[str, int] = {}
    with progress(f"Reading the column {column}"):
        numbers = np.fromiter((number_of.setdefault(str(cell), len(number_of)) for cell in cells), dtype=np.int64)
    return list(number_of), numbers
