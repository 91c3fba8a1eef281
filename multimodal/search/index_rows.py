"""Which rows an index has, next to its engine: their keys, and the values of those that were added after it was built.

The engine has vectors alone, of one model. To embed the same rows with another model, their values are needed: those of the
rows that it was built from are in the table; those of a row that was added later may be nowhere else. So each change is
recorded here before the engine makes it, in the file ``rows.sqlite``, which other processes may read while one has the engine
open. What is removed from the index, or replaced, is overwritten here too.

A change holds the lock of the file while the engine makes it. An upgrade holds it while it puts another index in the place of
this one, so that no change goes to an index that has been replaced.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multimodal.core.errors import MultimodalError
from multimodal.data.tables.open import IN_MEMORY
from multimodal.search.row_cells import row_of_json, row_to_json

if TYPE_CHECKING:
    from multimodal.data.samples import Samples

ROWS = "rows.sqlite"
WAIT_SECONDS = 60.0  # for a change of another process, or for the end of an upgrade
PAGE = 256  # added rows in memory at a time
SCHEMA = """
CREATE TABLE sources (id INTEGER PRIMARY KEY, settings TEXT NOT NULL UNIQUE);
CREATE TABLE rows (key TEXT PRIMARY KEY, change INTEGER NOT NULL, source INTEGER, cells TEXT) WITHOUT ROWID;
CREATE INDEX added ON rows (change, key) WHERE change > 0;
CREATE TABLE state (last_change INTEGER NOT NULL, mark INTEGER NOT NULL);
INSERT INTO state VALUES (0, 0);
"""


@dataclass(frozen=True)
class AddedRows:
    """Rows that were added by one call after the index was built, or those of them that were not replaced since.

    Attributes:
        change: the number of the change.
        settings: those with which their table was opened (``Samples.settings``).
        keys: their keys.
        rows: the rows themselves, if their table was in memory; None where a cell could not be stored.

    Examples:
        >>> AddedRows(1, {"table": "in memory"}, ["cup-1"], [{"sku": "cup-1", "name": "a red cup"}]).in_memory
        True
    """

    change: int
    settings: dict[str, Any]
    keys: list[str]
    rows: list[dict[str, Any] | None]

    @property
    def in_memory(self) -> bool:
        """Whether their table was in memory, so that they are stored here."""
        return self.settings["table"] == IN_MEMORY


class IndexRows:
    """The rows of the index in a folder.

    Args:
        folder: the folder of the index, which has the file.

    Raises:
        MultimodalError: the file is missing or damaged.

    Examples:
        >>> Path("index").mkdir()
        >>> rows = IndexRows.create(Path("index"), ["cup-1", "cup-2"])
        >>> rows.record_removal(["cup-2"])
        >>> sorted(rows.keys())
        ['cup-1']
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / ROWS
        if not self.file.is_file():
            raise MultimodalError(f"{folder} has no {ROWS}: it was built by an earlier version.")

    @classmethod
    def of(cls, folder: Path | None) -> IndexRows | None:
        """Return the rows of an index; None: it is in memory, on a server, or was built by an earlier version.

        Args:
            folder: the folder of the index. None: it is in memory.
        """
        return cls(folder) if folder is not None and (folder / ROWS).is_file() else None

    @classmethod
    def create(cls, folder: Path, keys: Iterable[str]) -> IndexRows:
        """Create the file of an index that is being built.

        Args:
            folder: the folder of the index.
            keys: the keys of its rows; one may come several times.
        """
        with closing(sqlite3.connect(folder / ROWS)) as connection, connection:
            connection.executescript(SCHEMA)
            connection.executemany("INSERT OR IGNORE INTO rows VALUES (?, 0, NULL, NULL)", ((key,) for key in keys))
        return cls(folder)

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """Open the file for a block, in which errors of it are ours."""
        try:
            # in "rw" mode a file that is gone is not created again
            address = f"{self.file.absolute().as_uri()}?mode=rw"
            with closing(sqlite3.connect(address, WAIT_SECONDS, isolation_level=None, uri=True)) as connection:
                for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "secure_delete = ON"):
                    connection.execute(f"PRAGMA {pragma}")
                yield connection
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise MultimodalError(
                    f"The index {self.file.parent} is being changed or upgraded by another process; try again later."
                ) from error
            raise MultimodalError(f"{self.file} cannot be used ({error}).") from error
        except (sqlite3.DatabaseError, ValueError) as error:
            raise MultimodalError(f"{self.file} is damaged ({error}); build the index again.") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from changing the index in the block.

        Raises:
            MultimodalError: another process changes it, or puts another in its place, for a minute.
        """
        while True:
            with self._connected() as connection:
                before = os.stat(self.file).st_ino
                connection.execute("BEGIN IMMEDIATE")
                try:
                    if os.stat(self.file).st_ino == before:  # else the folder was replaced while this waited for it
                        yield
                        return
                finally:
                    connection.execute("ROLLBACK")

    def keys(self, built_from: bool = False) -> set[str]:
        """Return the keys of the rows.

        Args:
            built_from: only of those that the index was built from and that were not replaced since.
        """
        chosen = " WHERE change = 0" if built_from else ""
        with self._connected() as connection:
            return {key for (key,) in connection.execute(f"SELECT key FROM rows{chosen}")}

    @property
    def last_change(self) -> int:
        """The number of the last change; 0: none."""
        return self._state()[0]

    @property
    def changes_since_mark(self) -> int:
        """The number of changes after ``set_mark``."""
        last, mark = self._state()
        return last - mark

    def _state(self) -> tuple[int, int]:
        with self._connected() as connection:
            return connection.execute("SELECT last_change, mark FROM state").fetchone()

    @property
    def mark(self) -> int:
        """The number of the change up to which another index has the same rows; 0: not set."""
        return self._state()[1]

    def added_keys(self, since: int) -> set[str]:
        """Return the keys of the rows that were added by changes after one.

        Args:
            since: the number of that change.
        """
        with self._connected() as connection:
            return {key for (key,) in connection.execute("SELECT key FROM rows WHERE change > ?", (since,))}

    def was_added(self, key: str) -> bool:
        """Return whether the row with a key was added, or replaced, after the index was built."""
        with self._connected() as connection:
            found = connection.execute("SELECT 1 FROM rows WHERE key = ? AND change > 0", (key,))
            return found.fetchone() is not None

    def set_mark(self) -> None:
        """Note that another index has the same rows as this one now."""
        with self._connected() as connection:
            connection.execute("UPDATE state SET mark = last_change")

    def record_upsert(self, samples: Samples, keys: Sequence[str]) -> None:
        """Record rows that are about to be added, in the place of those that have their keys.

        Args:
            samples: their table.
            keys: the keys of the rows that are added.
        """
        settings = samples.settings
        stored = settings["table"] == IN_MEMORY
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            change = _next_change(connection)
            named = json.dumps(settings, sort_keys=True)
            connection.execute("INSERT OR IGNORE INTO sources (settings) VALUES (?)", (named,))
            (source,) = connection.execute("SELECT id FROM sources WHERE settings = ?", (named,)).fetchone()
            for key in dict.fromkeys(keys):
                cells = row_to_json(_row_of(samples, samples.rows_by_key[key])) if stored else None
                connection.execute("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?)", (key, change, source, cells))
            connection.execute("COMMIT")

    def record_removal(self, keys: Sequence[str]) -> None:
        """Record that rows are about to be removed.

        Args:
            keys: their keys.
        """
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            _next_change(connection)
            connection.executemany("DELETE FROM rows WHERE key = ?", ((key,) for key in keys))
            connection.execute("COMMIT")

    def added(self, since: int = 0) -> Iterator[AddedRows]:
        """Yield the rows that were added after the index was built, in the order of the changes, some at a time.

        Args:
            since: only those of later changes than that of this number.
        """
        last: tuple[int, str] = (since, "\U0010ffff")
        while True:
            with self._connected() as connection:
                found = connection.execute(
                    "SELECT change, key, source, cells FROM rows WHERE change > 0 AND (change, key) > (?, ?)"
                    " ORDER BY change, key LIMIT ?",
                    (*last, PAGE),
                ).fetchall()
                sources = dict(connection.execute("SELECT id, settings FROM sources"))
            if not found:
                return
            for change, source in dict.fromkeys((row[0], row[2]) for row in found):
                chosen = [(key, cells) for c, key, s, cells in found if (c, s) == (change, source)]
                rows = [None if cells is None else row_of_json(cells) for _, cells in chosen]
                yield AddedRows(change, json.loads(sources[source]), [key for key, _ in chosen], rows)
            last = found[-1][0], found[-1][1]


def _next_change(connection: sqlite3.Connection) -> int:
    connection.execute("UPDATE state SET last_change = last_change + 1")
    return connection.execute("SELECT last_change FROM state").fetchone()[0]


def _row_of(samples: Samples, row: int) -> dict[str, Any]:
    """Return the cells of a row that embedding it again needs."""
    schema = samples.schema
    columns = [column for of_modality in schema.columns.values() for column in of_modality]
    columns += [column for column in (schema.key, schema.group) if column is not None]
    return samples.metadata(row) | {column: samples.cell(row, column) for column in columns}
