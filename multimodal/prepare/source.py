"""What is read: rows with their raw values, as often as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

from multimodal.core.errors import MultimodalError, Unreadable
from multimodal.core.rejects import Reject
from multimodal.core.table import Table
from multimodal.data.tables.cells import unpack_cell
from multimodal.data.tables.file_cells import resolve_file_cell
from multimodal.data.tables.open import consists_of_files, locate, open_table, stream_rows
from multimodal.data.tables.source import Source as Files
from multimodal.data.tables.webdataset import ADDRESS


@dataclass(frozen=True)
class Row:
    """One row: its number in the table, and the raw value of each column (None, or no entry, where it is missing)."""

    number: int
    values: Mapping[str, Any]


class Source(Protocol):
    """A table as ``prepare`` reads it.

    Every iteration yields all rows in the same order; a row that the reader itself cannot read comes as a ``Reject``,
    so that none is lost. ``total`` is the number of rows where it is known before reading (for the progress bar).

    Raw values: str, bool, int, float, bytes, list, mapping, None. A file is a path relative to the table (str), bytes,
    or a mapping ``{"path": ..., "bytes": ...}``.
    """

    @property
    def name(self) -> str: ...

    @property
    def columns(self) -> tuple[str, ...]: ...

    @property
    def total(self) -> int | None: ...

    def __iter__(self) -> Generator[Row | Reject]: ...

    def resolve(self, value: str) -> Path | bytes:
        """The file that a value names: a path where it is local, else its bytes.

        Raises:
            Unreadable: there is none.
        """
        ...


def open_source(table: str, options: Mapping[str, Any] | None = None, files: Path | None = None) -> Source:
    """A table by any name that ``open_table`` takes. Files of tables are streamed, other tables are mapped from disk.

    Args:
        table, options: see ``open_table``.
        files: a folder whose files the cells may name, beside that of the table.

    Raises:
        UsageError: there is nothing of that name, or an option is unknown.
        MultimodalError: it cannot be read.
    """
    if not consists_of_files(table):
        mapped = open_table(table, options)
        return MappedSource(mapped, CellFiles(mapped.base, files))
    source = locate(table, options)
    columns = tuple(column for column in _first_row(source) if column != ADDRESS)
    return StreamedSource(source, columns, CellFiles(source.base, files))


def _first_row(source: Files) -> Mapping[str, Any]:
    for file in source.files:
        with closing(stream_rows(source, file)) as rows:
            if (first := next(rows, None)) is not None:
                return first
    raise MultimodalError(f"The table {source.name!r} has no rows.")


@dataclass(frozen=True)
class CellFiles:
    """The files that cells name: those below the table's folder, or below another one that whoever runs it names.

    They are copied to where others may read them, so a table must not be able to name any file of this machine.
    """

    base: str | None
    beside: Path | None

    def __call__(self, value: str) -> Path | bytes:
        """The file that a cell names.

        Raises:
            Unreadable: there is none, or it lies elsewhere.
        """
        found = resolve_file_cell(value, self.base)
        if isinstance(found, Path):
            real = found.resolve()
            if not any(real.is_relative_to(folder) for folder in self._folders):
                raise Unreadable(
                    "path outside the table",
                    f"{value!r} does not lie in the table's folder; name the folder that it may lie in by --files.",
                )
        return found

    @cached_property
    def _folders(self) -> list[Path]:
        return [Path(folder).resolve() for folder in (self.base, self.beside) if folder is not None]


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
    cell_files: CellFiles
    total: int | None = None

    @property
    def name(self) -> str:
        return self.files.name

    def __iter__(self) -> Generator[Row | Reject]:
        known = {*self.columns, ADDRESS}
        number = 0
        for file in self.files.files:
            for cells in stream_rows(self.files, file):
                if not cells.keys() <= known:
                    raise MultimodalError(
                        f"{file}, row {number}: the column {min(cells.keys() - known)!r} is none of those that the table"
                        f" begins with ({', '.join(self.columns)}); give its first row all columns (null where missing)."
                    )
                yield _row(number, {column: partial(unpack_cell, cell) for column, cell in cells.items()})
                number += 1

    def resolve(self, value: str) -> Path | bytes:
        return self.cell_files(value)


@dataclass(frozen=True)
class MappedSource:
    """A table whose cells are read where they lie."""

    table: Table
    cell_files: CellFiles

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
        return self.cell_files(value)
