"""The log of a server's queries: rotating Parquet files in a folder.

1. ``QueryLog.append`` takes a query into memory; a thread adds what has come to the newest part every few seconds.
2. A part is written next to the old one and moved in its place, under a lock, so that a reader finds whole parts only, whenever
   the server is killed. A new part begins with each day (UTC), and after 4,096 rows.
3. Parts whose day is over for more than ``keep_days`` are deleted. ``delete_queries`` deletes single queries, or a user's.

A row is a value of a query: ``query_id``, ``time``, ``user`` (a salted hash), ``modality``, ``vector`` (float16), ``keys`` and
``scores`` of its hits, and ``text`` if the log keeps texts. The schema names the model by its fingerprint.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import threading
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.files import check_folder
from multimodal.core.json_file import read_json
from multimodal.core.system_errors import writing

pc: Any = pyarrow.compute  # its functions are made when it is imported
LOG_MARKER = "query_log.json"
LOCK = ".lock"
FORMAT = 1
PART_ROWS = 4096
MAX_WAITING = 20_000  # rows in memory; further ones are dropped and counted
MAX_PARTS = 10**6
FLUSH_SECONDS = 10.0
PART = re.compile(r"queries-(\d{4}-\d{2}-\d{2})-(\d{6})\.parquet")
FINGERPRINT = b"multimodal.fingerprint"


@dataclass(frozen=True)
class LoggedQuery:
    """A value of a query, and its hits.

    Args:
        fingerprint: of the model that computed the vector.
        dim: width of the model's vectors.
        query_id: of the query; the values of a query of several have the same.
        time: seconds since 1970 (UTC).
        user: who asked, as the server was given it; only its salted hash is written. None: unknown.
        modality: of the value. None: the query has none, such as one that is like a row.
        vector: ``(dim,)`` its vector; None: there is none.
        keys: of the hits, the best first.
        scores: of the hits.
        text: the value, if it is a text; written only if the log keeps texts.

    Examples:
        >>> LoggedQuery("f" * 64, 2, "q1", 0.0, None, "text", np.ones(2), ["cup-1"], [0.9]).keys
        ['cup-1']
    """

    fingerprint: str
    dim: int
    query_id: str
    time: float
    user: str | None
    modality: str | None
    vector: np.ndarray | None
    keys: Sequence[str]
    scores: Sequence[float]
    text: str | None = None


def new_query_id() -> str:
    """Return the name of a new query, 32 hexadecimal digits that nobody can guess."""
    return secrets.token_hex(16)


class QueryLog:
    """A folder to which a server's queries are written.

    Args:
        folder: the folder; it is created, or continued.
        keep_text: whether texts are written.
        keep_days: parts are deleted when their day is over for this many days. None: nothing is deleted.
        flush_seconds: time between two writings.

    Raises:
        MultimodalError: the folder holds something else, or cannot be written.

    Examples:
        >>> log = QueryLog("queries")
        >>> vector = np.array([0.6, 0.8])
        >>> log.append(LoggedQuery("f" * 64, 2, "q1", 1.8e9, "ann", "text", vector, ["cup-1"], [0.9], "a red cup"))
        >>> log.close()
        >>> (part,) = read_queries("queries")
        >>> part["query_id"].to_pylist(), part["text"].to_pylist(), len(part["user"][0].as_py())
        (['q1'], [None], 32)
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        keep_text: bool = False,
        keep_days: int | None = None,
        flush_seconds: float = FLUSH_SECONDS,
    ) -> None:
        self.folder, self.keep_text, self.keep_days = Path(folder), keep_text, keep_days
        self.dropped = 0
        self._salt = _open_folder(self.folder)
        self._waiting: deque[LoggedQuery] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._every = flush_seconds
        self.delete_old()
        self._thread = threading.Thread(target=self._work, name="multimodal-query-log", daemon=True)
        self._thread.start()

    def append(self, *queries: LoggedQuery) -> None:
        """Take queries into memory, which takes no time; they are written within ``flush_seconds``."""
        with self._changed:
            if self._closed or len(self._waiting) + len(queries) > MAX_WAITING:
                self.dropped += len(queries)
                return
            self._waiting.extend(queries)
            if len(self._waiting) >= PART_ROWS:
                self._changed.notify()

    def close(self) -> None:
        """Write what is in memory, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        day = _today()
        closed = False
        while not closed:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or len(self._waiting) >= PART_ROWS, self._every)
                closed = self._closed
                taken = list(self._waiting)
                self._waiting.clear()
            try:
                self._write(taken)
                if _today() != day:
                    day = _today()
                    self.delete_old()
            except (OSError, MultimodalError, pa.ArrowException):  # a full disk does not end the server
                self.dropped += len(taken)

    def _write(self, taken: Sequence[LoggedQuery]) -> None:
        together: dict[tuple[str, str, int], list[LoggedQuery]] = {}
        for query in taken:
            day = datetime.fromtimestamp(query.time, UTC).date().isoformat()
            together.setdefault((day, query.fingerprint, query.dim), []).append(query)
        for (day, fingerprint, dim), queries in together.items():
            rows = self._table(queries, _schema(fingerprint, dim))
            with _locked(self.folder):
                while len(rows):
                    rows = rows.slice(self._extend(day, rows))

    def _extend(self, day: str, rows: pa.Table) -> int:
        """Add rows to the newest part of a day, or begin the next one; return how many were added."""
        numbers = [number for found, number, _ in _parts(self.folder) if found == day]
        newest = self.folder / _part_name(day, max(numbers, default=0))
        if numbers and (known := _readable(newest)) is not None and _model_of(known.schema) == _model_of(rows.schema):
            room = max(0, PART_ROWS - len(known))
            if room:
                added = rows.slice(0, room)
                _write_part(newest, pa.concat_tables([known.cast(rows.schema), added]))
                return len(added)
        added = rows.slice(0, PART_ROWS)
        _write_part(self.folder / _part_name(day, max(numbers, default=-1) + 1), added)
        return len(added)

    def _table(self, queries: Sequence[LoggedQuery], schema: pa.Schema) -> pa.Table:
        rows = [
            {
                "query_id": query.query_id,
                "time": datetime.fromtimestamp(query.time, UTC),
                "user": None if query.user is None else hash_user(query.user, self._salt),
                "modality": query.modality,
                "vector": None if query.vector is None else np.asarray(query.vector, np.float16).reshape(query.dim),
                "keys": list(query.keys),
                "scores": np.asarray(query.scores, np.float32),
                "text": query.text if self.keep_text else None,
            }
            for query in queries
        ]
        return pa.Table.from_pylist(rows, schema=schema)

    def delete_old(self) -> int:
        """Delete the parts whose day is over for more than ``keep_days``; return how many."""
        if self.keep_days is None:
            return 0
        oldest = (datetime.now(UTC).date() - timedelta(days=self.keep_days)).isoformat()
        deleted = 0
        with _locked(self.folder):
            for day, _, path in _parts(self.folder):
                if day < oldest:
                    path.unlink(missing_ok=True)
                    deleted += 1
        return deleted


def hash_user(user: str, salt: str) -> str:
    """Return what the log has in place of a user: HMAC-SHA256 with the log's salt, 32 hexadecimal digits."""
    return hmac.new(bytes.fromhex(salt), user.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:32]


def read_queries(folder: str | Path, fingerprint: str | None = None) -> Iterator[pa.Table]:
    """Read the parts of a log in the order of their days, one at a time.

    Args:
        folder: the folder.
        fingerprint: only parts of the model with this fingerprint. None: all.

    Raises:
        MultimodalError: the folder is not a log of queries, or a part is damaged.
    """
    folder = Path(folder)
    _salt_of(folder)
    for _, _, path in _parts(folder):
        try:
            table = pq.read_table(path)
        except FileNotFoundError:  # it was too old meanwhile
            continue
        except (OSError, pa.ArrowException) as error:
            raise MultimodalError(f"{path} is damaged ({error}); delete it.") from error
        if fingerprint is None or _fingerprint_of(table.schema) == fingerprint:
            yield table


def newest_fingerprint(folder: str | Path) -> str:
    """Return the fingerprint of the model that computed the newest vectors of a log.

    Raises:
        MultimodalError: the folder is not a log of queries, or has no queries.
    """
    _salt_of(Path(folder))
    found = _parts(Path(folder))
    if not found:
        raise MultimodalError(f"{folder} has no queries yet.")
    try:
        return _fingerprint_of(pq.read_schema(found[-1][2]))
    except (OSError, pa.ArrowException) as error:
        raise MultimodalError(f"{found[-1][2]} is damaged ({error}); delete it.") from error


def delete_queries(folder: str | Path, query_ids: Collection[str] = (), users: Collection[str] = ()) -> int:
    """Delete queries of a log, also while a server writes to it; what the server has not written yet is not deleted.

    Args:
        folder: the folder.
        query_ids: of the queries.
        users: all queries of these users, as they were given to the server.

    Returns:
        The number of deleted rows.

    Raises:
        MultimodalError: the folder is not a log of queries, a part is damaged, or it cannot be written.

    Examples:
        >>> log = QueryLog("log")
        >>> log.append(*(LoggedQuery("f" * 64, 2, f"q{i}", 1.8e9, f"user {i}", None, None, [], []) for i in range(3)))
        >>> log.close()
        >>> delete_queries("log", query_ids=["q0"], users=["user 2", "user 7"])
        2
    """
    folder = Path(folder)
    salt = _salt_of(folder)
    hashes = [hash_user(user, salt) for user in users]
    deleted = 0
    with _locked(folder), writing(folder):
        for _, _, path in _parts(folder):
            try:
                table = pq.read_table(path)
            except (OSError, pa.ArrowException) as error:
                raise MultimodalError(f"{path} is damaged ({error}); delete it.") from error
            by_id = pc.is_in(table["query_id"], pa.array(list(query_ids), pa.string()))
            by_user = pc.is_in(table["user"], pa.array(hashes, pa.string()))
            kept = table.filter(pc.invert(pc.or_(by_id, by_user)))
            if len(kept) == len(table):
                continue
            deleted += len(table) - len(kept)
            if len(kept):
                _write_part(path, kept)
            else:
                path.unlink()
    return deleted


def _schema(fingerprint: str, dim: int) -> pa.Schema:
    fields = {
        "query_id": pa.string(),
        "time": pa.timestamp("ms", "UTC"),
        "user": pa.string(),
        "modality": pa.string(),
        "vector": pa.list_(pa.float16(), dim),
        "keys": pa.list_(pa.string()),
        "scores": pa.list_(pa.float32()),
        "text": pa.string(),
    }
    return pa.schema(list(fields.items()), {FINGERPRINT: fingerprint.encode()})


def _fingerprint_of(schema: pa.Schema) -> str:
    return (schema.metadata or {}).get(FINGERPRINT, b"").decode("ascii", "replace")


def _model_of(schema: pa.Schema) -> tuple[str, int]:
    return _fingerprint_of(schema), schema.field("vector").type.list_size


def _open_folder(folder: Path) -> str:
    """Create the folder of a log if there is none, remove what a killed process left, and return its salt."""
    check_folder(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            if not (folder / LOG_MARKER).exists():
                if any(path.name != LOCK for path in folder.iterdir()):
                    raise UsageError(f"{folder} is not empty and not a log of queries; name another folder.")
                document = {"format": FORMAT, "salt": secrets.token_hex(16)}
                _replace(folder / LOG_MARKER, json.dumps(document).encode(), 0o600)
            for path in folder.glob(".new-*"):
                path.unlink(missing_ok=True)
    return _salt_of(folder)


def _salt_of(folder: Path) -> str:
    try:
        document = read_json(folder / LOG_MARKER)
        if document["format"] != FORMAT:
            raise ValueError("another format")
        bytes.fromhex(document["salt"])
        return document["salt"]
    except FileNotFoundError as error:
        raise MultimodalError(f"{folder} is not a log of queries: {LOG_MARKER} is missing.") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise MultimodalError(f"{folder / LOG_MARKER} cannot be read ({error}).") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Wait until nobody else changes the parts."""
    from filelock import FileLock

    with FileLock(folder / LOCK):
        yield


def _today() -> date:
    return datetime.now(UTC).date()


def _part_name(day: str, number: int) -> str:
    return f"queries-{day}-{number:06}.parquet"


def _parts(folder: Path) -> list[tuple[str, int, Path]]:
    """Return day, number and path of the parts, in order."""
    found = [(match, path) for path in folder.iterdir() if (match := PART.fullmatch(path.name))]
    return sorted((match[1], int(match[2]), path) for match, path in found)


def _readable(path: Path) -> pa.Table | None:
    with suppress(OSError, pa.ArrowException):
        return pq.read_table(path)
    return None


def _write_part(path: Path, table: pa.Table) -> None:
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    _replace(path, buffer.getvalue(), 0o600)


def _replace(path: Path, content: Any, mode: int) -> None:
    """Write a file next to the path, and move it there when it is whole and on the disk."""
    new = path.with_name(f".new-{path.name}")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
