"""The tables that ``multimodal.data.tables`` opens, as sources for ``prepare``."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from multimodal import datasets as builtin
from multimodal.core.errors import MultimodalError, Unreadable
from multimodal.core.rejects import Reject
from multimodal.core.table import Table
from multimodal.data.cells import opened
from multimodal.data.files import resolve
from multimodal.data.prepare.source import Row, Source
from multimodal.data.shards import ADDRESS
from multimodal.data.tables import Source as Files
from multimodal.data.tables import locate, open_table, stream_of


def open_source(table: str, options: Mapping[str, Any] | None = None) -> Source:
    """A table by any name that ``open_table`` takes. Files of tables are streamed, other tables are mapped from disk.

    Raises:
        UsageError: there is nothing of that name, or an option is unknown.
        MultimodalError: it cannot be read.
    """
    if table in builtin.TABLES or table.startswith("hf:") or _is_folder_of_others(table):
        return MappedSource(open_table(table, options))
    files = locate(table, options)
    with closing(stream_of(files, files.files[0])) as rows:
        first = next(rows, None)
    return StreamedSource(files, tuple(column for column in first or {} if column != ADDRESS))


def _is_folder_of_others(table: str) -> bool:
    """Whether it is a data set that was saved to disk, or a folder without a table in it."""
    import fsspec

    try:
        system, path = fsspec.url_to_fs(table)
        if not system.isdir(path):
            return False
        saved = any(system.exists(posixpath.join(path, name)) for name in ("state.json", "dataset_dict.json"))
        endings = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".tar", ".gz", ".bz2", ".xz", ".zst")
        return saved or not any(str(file).lower().endswith(endings) for file in system.ls(path, detail=False))
    except Exception as error:  # whatever a file system raises
        raise MultimodalError(f"The table {table!r} cannot be read ({type(error).__name__}: {error}).") from error


def _resolved(value: str, base: str | None) -> Path | bytes:
    found = resolve(value, base)
    if not isinstance(found, Path | bytes):
        raise Unreadable("not a file", f"{value!r} names no file.")
    return found


def _row(number: int, cells: Mapping[str, Callable[[], Any]]) -> Row | Reject:
    values = {}
    for column, cell in cells.items():
        try:
            values[column] = cell()
        except Unreadable as error:
            return Reject.of(number, str(number), column, "", error)
    return Row(number, values)


@dataclass(frozen=True)
class StreamedSource:
    """Files that are read from first row to last, a block at a time."""

    files: Files
    columns: tuple[str, ...]
    total: int | None = None

    @property
    def name(self) -> str:
        return self.files.name

    def __iter__(self) -> Generator[Row | Reject]:
        known = {*self.columns, ADDRESS}
        number = 0
        for file in self.files.files:
            for cells in stream_of(self.files, file):
                if not cells.keys() <= known:
                    raise MultimodalError(
                        f"{file}, row {number}: the column {min(cells.keys() - known)!r} is none of those that the table"
                        f" begins with ({', '.join(self.columns)}); give its first row all columns (null where missing)."
                    )
                yield _row(number, {column: partial(opened, cell) for column, cell in cells.items()})
                number += 1

    def resolve(self, value: str) -> Path | bytes:
        return _resolved(value, self.files.base)


@dataclass(frozen=True)
class MappedSource:
    """A table whose cells are read where they lie."""

    table: Table

    @property
    def name(self) -> str:
        return self.table.name

    @property
    def columns(self) -> tuple[str, ...]:
        return self.table.columns

    @property
    def total(self) -> int:
        return len(self.table)

    def __iter__(self) -> Generator[Row | Reject]:
        for number in range(len(self.table)):
            yield _row(number, {column: partial(self.table.value, number, column) for column in self.columns})

    def resolve(self, value: str) -> Path | bytes:
        return _resolved(value, self.table.base)
