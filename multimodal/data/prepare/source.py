"""What is read: rows with their raw values, as often as they are asked for."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from multimodal.core.rejects import Reject


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
