"""A table that is written again with more rows or columns: clean values of its rows, and the types to store them in."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from multimodal.core.errors import MultimodalError, Unreadable, UsageError
from multimodal.core.rejects import Reject
from multimodal.data.schema import Row as SchemaRow
from multimodal.data.schema import Schema
from multimodal.data.tables.cells import FILE_FIELDS
from multimodal.prepare.arrow_types import Stored, StoredType
from multimodal.prepare.cleaning import Cleaner, is_missing
from multimodal.prepare.column_kinds import SAMPLED_ROWS, describe_columns, truncate_value
from multimodal.prepare.columns import Column
from multimodal.prepare.source import Row, Source

Progress = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]
GROUP, SPLIT = "group", "split"  # columns that are added: each row's group, if the table has none, and its split


@dataclass(frozen=True)
class CleanRow:
    """A row that can be read.

    Attributes:
        number: its number in the table, from 0.
        key: its key; its number if the table has no keys.
        group: its group, as ``Schema.group_of`` names it.
        split: its split; None: it is in none.
        values: column -> clean value; missing values have no entry.

    Examples:
        >>> CleanRow(0, "s-1", "=cup", "train", {"title": "a red cup"}).values["title"]
        'a red cup'
    """

    number: int
    key: str
    group: str
    split: str | None
    values: Mapping[str, Any]


class StorableSource:
    """A source whose arrays and graphs are converted to what a shard can hold: PNG files, and mappings of lists.

    Args:
        source: the source.

    Examples:
        >>> storable(np.zeros((2, 2), dtype=np.uint8))["path"], storable("a red cup")
        (None, 'a red cup')
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.resolve: Callable[[str], Path | bytes] = source.resolve

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def columns(self) -> tuple[str, ...]:
        return self._source.columns

    @property
    def total(self) -> int | None:
        return self._source.total

    def __iter__(self) -> Generator[Row | Reject]:
        for item in self._source:
            if isinstance(item, Reject):
                yield item
            else:
                yield Row(item.number, {column: storable(value) for column, value in item.values.items()})


def storable(value: Any) -> Any:
    """Convert an array of pixels to the cell of a PNG file, and a PyG graph to a mapping of lists; return others as given."""
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim in (2, 3):
        buffer = io.BytesIO()
        Image.fromarray(value).save(buffer, "PNG")
        return {"bytes": buffer.getvalue(), "path": None}
    to_dict = getattr(value, "to_dict", None)
    if to_dict is not None and hasattr(value, "edge_index"):
        return {name: entry.tolist() if hasattr(entry, "tolist") else entry for name, entry in to_dict().items()}
    return value


class CopiedTable:
    r"""A table whose rows are read twice: to find out their types, and to write them with more columns or rows.

    Args:
        source: the table.
        schema: the meaning of its columns.
        max_rejects: the fraction of the rows that may be unreadable, in [0, 1].
        normalize: column -> function that brings its clean values into one form.

    Attributes:
        columns: the table's columns and their kinds.
        rejects: the rows that cannot be read.

    Raises:
        MultimodalError: the table has no rows.
        UsageError: the schema names a column that the table does not have.

    Examples:
        >>> from multimodal.prepare.source import open_source
        >>> _ = Path("cups.csv").write_text("title,product\na red cup,7\n")
        >>> table = CopiedTable(open_source("cups.csv"), Schema.from_settings({"text": "title"}, group="product"))
        >>> table.scan()
        >>> [(row.group, row.values["title"]) for row in table.rows()]
        [('=7', 'a red cup')]
    """

    def __init__(
        self,
        source: Source,
        schema: Schema,
        max_rejects: float = 0.01,
        normalize: Mapping[str, Callable[[Any], Any]] | None = None,
    ) -> None:
        self._normalize = normalize or {}
        self.source, self.schema, self.max_rejects = StorableSource(source), schema, max_rejects
        schema.check(source.name, source.columns)
        labels = [c for c in (schema.key, schema.group, schema.split) if isinstance(c, str)]
        first = self._first_rows()
        content = {m: [c for c in columns if not _holds_vectors(first, c)] for m, columns in schema.columns.items()}
        modality_of = {column: modality for modality, columns in schema.columns.items() for column in columns}
        self.columns = [
            replace(column, modality=modality_of.get(column.name, column.modality))
            for column in describe_columns(source.columns, first, content, labels, source.resolve)
        ]
        self.kinds = {column.name: column for column in self.columns}
        self._clean = Cleaner(self.columns, schema.key, frozenset(labels), source.resolve)
        self._types = {c.name: StoredType(c.name) for c in self.columns if not c.is_file}
        self.rejects: list[Reject] = []
        self._accepted = bytearray()

    def _first_rows(self) -> list[dict[str, Any]]:
        with closing(iter(self.source)) as items:
            first = [
                {column: truncate_value(value) for column, value in item.values.items()}
                for item in islice(items, SAMPLED_ROWS)
                if isinstance(item, Row)
            ]
        if not first:
            raise MultimodalError(f"The table {self.source.name!r} has no rows that can be read.")
        return first

    def scan(self, visit: Callable[[CleanRow], None] | None = None, progress: Progress | None = None) -> None:
        """Read all rows for the first time.

        Args:
            visit: called with each row that can be read.
            progress: see ``prepare``.

        Raises:
            MultimodalError: too many rows cannot be read, or a value cannot be stored.
        """
        with _progress(progress, "Reading", self.source.total) as advance:
            for item in self.source:
                row = item if isinstance(item, Reject) else self._row(item)
                self._accepted.append(isinstance(row, CleanRow))
                if isinstance(row, Reject):
                    self.rejects.append(row)
                else:
                    self.add_types(row.values)
                    if visit is not None:
                        visit(row)
                advance(1)
        self._check_rejects()

    def add_types(self, values: Mapping[str, Any]) -> None:
        """Include values of columns that are not files in the types that they are stored in."""
        for column, value in values.items():
            if column in self._types:
                self._types[column].add(value)

    def rows(self) -> Iterator[CleanRow]:
        """Read the rows that can be read again.

        Raises:
            MultimodalError: the table changed since it was read first.
        """
        position = 0
        for item in self.source:
            accepted = position < len(self._accepted) and self._accepted[position]
            row = self._row(item) if accepted and isinstance(item, Row) else None
            if position >= len(self._accepted) or (accepted and not isinstance(row, CleanRow)):
                raise self._changed()
            if isinstance(row, CleanRow):
                yield row
            position += 1
        if position != len(self._accepted):
            raise self._changed()

    def output(self, added: Mapping[str, Column]) -> tuple[list[Column], dict[str, Stored]]:
        """Return the columns to write, with their split and group, and the types that they are stored in.

        Args:
            added: name -> column that is added to the table; columns that are not files hold texts.

        Raises:
            UsageError: the table has a column ``group`` that is not its group.
        """
        import pyarrow as pa

        text = Stored(pa.string(), as_text=False)
        if self.schema.group is None and GROUP in self.kinds:
            raise UsageError(
                f"The table {self.source.name!r} has a column 'group': name the groups' column by --group."
            )
        added = dict(added) | ({} if self.schema.group else {GROUP: Column(GROUP, "category", None)})
        added |= {SPLIT: Column(SPLIT, "category", None)}
        columns = [*(c for c in self.columns if c.name not in added), *added.values()]
        types = {name: stored.stored for name, stored in self._types.items()}
        return columns, types | {name: text for name, column in added.items() if not column.is_file}

    def labelled(self, row: CleanRow) -> dict[str, Any]:
        """Return the values of a row with its split and group."""
        values = dict(row.values)
        if row.split is not None:
            values[SPLIT] = row.split
        if self.schema.group is None:
            values[GROUP] = row.key
        return values

    def clean_cell(self, number: int, column: str, value: Any) -> Any:
        """Return a value of a column in the form in which it is written; None if it is missing or cannot be read.

        Args:
            number: number of its row.
            column: the column.
            value: the raw value.
        """
        clean = self._clean(Row(number, {column: storable(value)}))
        return None if isinstance(clean, Reject) else clean.get(column)

    def _row(self, item: Row) -> CleanRow | Reject:
        clean = self._clean(item)
        if isinstance(clean, Reject):
            return clean
        raw = item.values

        def cell(column: str) -> Any:
            value = raw.get(column)
            if isinstance(value, Mapping) and value.keys() == FILE_FIELDS:
                raise Unreadable("not a label", f"a file is in the column {column!r}, which holds labels.")
            return None if is_missing(value) else value

        for column in self._normalize.keys() & clean.keys():
            clean[column] = self._normalize[column](clean[column])
        labels = SchemaRow(item.number, str(item.number), cell, None)
        split = self.schema.split_of(labels)
        in_none = isinstance(self.schema.split, str) and self.schema.split not in clean
        return CleanRow(
            item.number,
            self.schema.key_of(labels),
            self.schema.group_of(labels),
            None if in_none else split,
            clean,
        )

    def _check_rejects(self) -> None:
        rows, rejected = len(self._accepted), len(self.rejects)
        if rejected > self.max_rejects * rows:
            first = self.rejects[0]
            reasons = Counter(reject.reason for reject in self.rejects).most_common(3)
            needed = math.ceil(1000 * rejected / rows) / 1000
            raise MultimodalError(
                f"{rejected:,} of {rows:,} rows of {self.source.name!r} cannot be read, more than max_rejects"
                f" {self.max_rejects:g} ({', '.join(f'{count:,} x {reason}' for reason, count in reasons)}). The first: row"
                f" {first.row}, column {first.column!r}: {first.message.rstrip('.')}. max_rejects {needed:g} would allow them."
            )

    def _changed(self) -> MultimodalError:
        return MultimodalError(
            f"The table {self.source.name!r} or its files changed while they were read; run it again."
        )


def _holds_vectors(rows: Iterable[Mapping[str, Any]], column: str) -> bool:
    """Return whether a column holds lists: precomputed vectors, whatever their modality."""
    values = [value for row in rows if not is_missing(value := row.get(column))]
    return bool(values) and all(isinstance(value, list) for value in values)


def _progress(progress: Progress | None, what: str, total: int | None) -> AbstractContextManager[Callable[[int], None]]:
    from multimodal.prepare.pipeline import no_progress

    return (progress or no_progress)(what, total)
