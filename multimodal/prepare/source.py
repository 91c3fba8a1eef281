"""Sources of ``prepare``: tables whose rows can be read repeatedly."""

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
from multimodal.data.tables.compressed import check_compressed
from multimodal.data.tables.file_cells import resolve_file_cell
from multimodal.data.tables.open import consists_of_files, locate, open_table, stream_rows
from multimodal.data.tables.reader_errors import translate_reader_errors
from multimodal.data.tables.source import Source as Files
from multimodal.data.tables.webdataset import ADDRESS


@dataclass(frozen=True)
class Row:
    """Row of a table with raw values.

    Attributes:
        number: its number in the table, from 0.
        values: column -> raw value; a missing value is None or has no entry.
    """

    number: int
    values: Mapping[str, Any]


class Source(Protocol):
    """Table whose rows ``prepare`` reads.

    Every iteration yields all rows in the same order. A row that the reader cannot read is yielded as a ``Reject``, so that
    no row is lost.

    Raw values: str, bool, int, float, bytes, list, mapping, None. A file is a path relative to the table (str), bytes,
    or a mapping ``{"path": ..., "bytes": ...}``.
    """

    @property
    def name(self) -> str:
        """Name of the table, for people."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        ...

    @property
    def total(self) -> int | None:
        """Number of rows, for the progress bar; None: unknown before reading."""
        ...

    def __iter__(self) -> Generator[Row | Reject]: ...

    def resolve(self, value: str) -> Path | bytes:
        """Return the file that a value names: a path if it is local, else its bytes.

        Raises:
            Unreadable: there is no such file.
        """
        ...


def open_source(table: str, options: Mapping[str, Any] | None = None, files: Path | None = None) -> Source:
    """Open a table by any name that ``open_table`` accepts; table files are streamed, other tables are mapped from disk.

    Args:
        table: name of the table.
        options: settings of its reader; see ``open_table``.
        files: a folder, in addition to the table's own, whose files the cells may name.

    Raises:
        UsageError: there is no such table, or an option is unknown.
        MultimodalError: the table cannot be read.
    """
    if not consists_of_files(table):
        mapped = open_table(table, options)
        return _MappedSource(mapped, CellFiles(mapped.base, files))
    source = locate(table, options)
    with translate_reader_errors(table):
        check_compressed(source.files)
    columns = tuple(column for column in _first_row(source) if column != ADDRESS)
    return _StreamedSource(source, columns, CellFiles(source.base, files))


def _first_row(source: Files) -> Mapping[str, Any]:
    for file in source.files:
        with closing(stream_rows(source, file)) as rows:
            if (first := next(rows, None)) is not None:
                return first
    raise MultimodalError(f"The table {source.name!r} has no rows.")


@dataclass(frozen=True)
class CellFiles:
    """Files that cells may name: files below the table's folder or below another folder that the user names.

    The files are copied to a place where others may read them, so a table must not be able to name any file of the machine.

    Args:
        base: the table's folder or address; None: it has none.
        extra_folder: another folder; None: there is none.
    """

    base: str | None
    extra_folder: Path | None

    def __call__(self, value: str) -> Path | bytes:
        """Return the file that a cell names.

        Raises:
            Unreadable: there is no such file, or it is in another folder.
        """
        file = resolve_file_cell(value, self.base)
        if isinstance(file, str):  # XML in the cell itself
            return file.encode(errors="replace")
        if isinstance(file, Path):
            resolved = file.resolve()
            if not any(resolved.is_relative_to(folder) for folder in self._folders):
                raise Unreadable(
                    "path outside the table",
                    f"{value!r} is not in the table's folder; name the folder in which it may be by --files.",
                )
        return file

    @cached_property
    def _folders(self) -> list[Path]:
        return [Path(folder).resolve() for folder in (self.base, self.extra_folder) if folder is not None]


def _row(number: int, cells: Mapping[str, Callable[[], Any]]) -> Row | Reject:
    values = {}
    for column, cell in cells.items():
        try:
            values[column] = cell()
        except Unreadable as error:
            return Reject.of(number, str(number), column, "", error)
    return Row(number, values)


@dataclass(frozen=True)
class _StreamedSource:
    """Table in files that are read from the first row to the last, a block at a time."""

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
                        f"{file}, row {number}: the column {min(cells.keys() - known)!r} is missing in the first row of the"
                        f" table ({', '.join(self.columns)}); give the first row all columns (null where missing)."
                    )
                yield _row(number, {column: partial(unpack_cell, cell) for column, cell in cells.items()})
                number += 1

    def resolve(self, value: str) -> Path | bytes:
        return self.cell_files(value)


@dataclass(frozen=True)
class _MappedSource:
    """Table whose cells are read from disk on demand."""

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
