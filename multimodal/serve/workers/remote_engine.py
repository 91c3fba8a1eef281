"""The engine of an index that another process of the same server has open."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from multimodal.core.conditions import Kind, Where
from multimodal.core.errors import MultimodalError
from multimodal.search.engines.engine import Found
from multimodal.search.index_folder import IndexFolder
from multimodal.serve.workers.host import Counter
from multimodal.serve.workers.messages import (
    Message,
    found_of_json,
    raise_error,
    table_from_bytes,
    table_to_bytes,
    vectors_from_bytes,
    vectors_to_bytes,
    where_to_json,
)


class Link:
    """The way from a worker to the process that has the index; each thread that calls has a connection meanwhile.

    Args:
        folder: the folder of the index, for errors.
        path: of the socket of the ``IndexHost``.
        changes: its number of changes.

    Examples:
        >>> Link(Path("index"), Path("socket"), changes=None).call("count", {"handle": 1, "modality": "text"})
        Traceback (most recent call last):
        ...
        multimodal.core.errors.MultimodalError: The process that has the index index cannot be reached: ...
    """

    def __init__(self, folder: Path, path: Path, changes: Counter) -> None:
        self.folder, self.changes = folder, changes
        self._path = str(path)
        self._idle: deque[Connection] = deque()

    def call(self, name: str, content: dict[str, Any], parts: Sequence[bytes] = ()) -> Message:
        """Call what the other process offers, and return its answer.

        Args:
            name: of the call.
            content: its arguments.
            parts: its vectors and tables.

        Raises:
            MultimodalError: the other process raised one, or has ended.
        """
        with self._errors():
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self.connect()
            answer = self.call_by(connection, name, content, parts)
        self._idle.append(connection)
        return self._checked(answer)

    def call_by(self, connection: Connection, name: str, content: dict[str, Any], parts: Sequence[bytes] = ()) -> bytes:
        """Call by a connection, which is closed if that fails; return the answer as it came.

        Args:
            connection: to the other process.
            name: of the call.
            content: its arguments.
            parts: its vectors and tables.
        """
        try:
            connection.send_bytes(Message({"call": name, **content}, parts).to_bytes())
            return connection.recv_bytes()
        except BaseException:  # an answer that comes later would be taken for that of another call
            connection.close()
            raise

    def connect(self) -> Connection:
        """Return a new connection."""
        return Client(self._path, "AF_UNIX")

    def open(self) -> IndexFolder:
        """Open the index.

        Raises:
            MultimodalError: it cannot be opened.
        """
        changes = self.changes.value
        with self._errors():
            connection = self.connect()
            answer = self.call_by(connection, "open", {})
        try:
            opened = self._checked(answer).content
        except MultimodalError:
            connection.close()
            raise
        return IndexFolder(RemoteEngine(self, connection, opened, changes), opened["description"])

    def close(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._idle.pop().close()

    def _checked(self, answer: bytes) -> Message:
        message = Message.from_bytes(answer)
        if (error := message.content.get("error")) is not None:
            raise_error(error, self.folder)
        return message

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise MultimodalError(
                f"The process that has the index {self.folder} cannot be reached: {reason}."
            ) from error


class RemoteEngine:
    """Searches and changes an index that another process has open.

    Args:
        link: the way to it.
        connection: the connection by which it was opened; the index is released when it ends.
        opened: the answer to that.
        changes: the number of changes before that.

    Attributes:
        name: of the engine there.
        dim: width of the vectors.

    Examples:
        >>> opened = {"handle": 1, "name": "exact", "dim": 2, "grouped": True, "modalities": ["text"], "columns": []}
        >>> from ctypes import c_ulonglong
        >>> link = Link(Path("index"), Path("socket"), c_ulonglong(0))
        >>> RemoteEngine(link, None, opened, changes=0).modalities
        ['text']
    """

    def __init__(self, link: Link, connection: Connection, opened: dict[str, Any], changes: int) -> None:
        self._link, self._connection, self._handle = link, connection, opened["handle"]
        self._known = changes, opened  # replaced as one, so that threads need no lock
        self.name: str = opened["name"]
        self.dim: int = opened["dim"]

    def _call(self, name: str, parts: Sequence[bytes] = (), /, **content: Any) -> Message:
        return self._link.call(name, {"handle": self._handle, **content}, parts)

    def _state(self) -> dict[str, Any]:
        """What is known of the index, asked for again after a change."""
        changes, (known_at, known) = self._link.changes.value, self._known
        if changes != known_at:
            known = self._call("describe").content
            self._known = changes, known
        return known

    @property
    def grouped(self) -> bool:
        """Whether several rows may be in one group."""
        return self._state()["grouped"]

    @property
    def modalities(self) -> list[str]:
        """The modalities of the stored vectors."""
        return list(self._state()["modalities"])

    @property
    def columns(self) -> list[str]:
        """The columns of the metadata."""
        return list(self._state()["columns"])

    def count(self, modality: str) -> int:
        """Return the number of stored vectors of a modality.

        Args:
            modality: one of ``modalities``.
        """
        return self._call("count", modality=modality).content["count"]

    def kinds(self, column: str) -> set[Kind]:
        """Return what ranges of a column can compare: numbers, dates, both or neither.

        Args:
            column: one of ``columns``.

        Raises:
            UsageError: the rows were stored without what ranges compare.
        """
        return set(self._call("kinds", column=column).content["kinds"])

    def nearest(
        self,
        queries: np.ndarray,
        count: int,
        modality: str | None = None,
        where: Where | None = None,
        exact: bool = False,
    ) -> list[list[Found]]:
        """Find the stored vectors nearest to each query, as ``Engine.nearest`` defines it.

        Args:
            queries: ``(q, dim)`` float32 of unit length.
            count: number of vectors to find for each query, at least 1.
            modality: search only the vectors of this modality. None: all.
            where: search only the rows that have these values.
            exact: compare every vector.

        Returns:
            For each query, what is found, the best first.
        """
        asked = {"count": count, "modality": modality, "where": where_to_json(where), "exact": exact}
        return found_of_json(self._call("nearest", [vectors_to_bytes(queries)], **asked).content["found"])

    def nearest_by_words(
        self, query: np.ndarray, words: str, count: int, modality: str | None = None, where: Where | None = None
    ) -> list[Found]:
        """Find the rows that are nearest by vectors and words, as ``Engine.nearest_by_words`` defines it.

        Args:
            query: ``(dim,)`` float32 of unit length.
            words: the words to look for.
            count: number of rows to find, at least 1.
            modality: search only the vectors of this modality. None: all.
            where: search only the rows that have these values.

        Returns:
            What is found, in the order of the fused ranks.
        """
        asked = {"words": words, "count": count, "modality": modality, "where": where_to_json(where)}
        answer = self._call("nearest_by_words", [vectors_to_bytes(query[None])], **asked)
        return found_of_json(answer.content["found"])[0]

    def upsert(self, parts: Iterable[pa.Table]) -> None:
        """Add rows, in the place of those that have their keys; they are durable when this returns.

        Args:
            parts: parts of embeddings.
        """
        self._call("upsert", [table_to_bytes(part) for part in parts])

    def remove(self, keys: Sequence[str]) -> int:
        """Remove rows, and return how many were there; they are gone for good when this returns.

        Args:
            keys: the keys of the rows.
        """
        return self._call("remove", keys=list(keys)).content["removed"]

    def select(
        self, modality: str | None = None, where: Where | None = None, keys: Sequence[str] | None = None
    ) -> tuple[np.ndarray, pa.Table]:
        """Return stored vectors and their descriptions, as ``Engine.select`` defines it.

        Args:
            modality: only the vectors of this modality. None: all.
            where: only the rows that have these values.
            keys: only the rows with these keys.
        """
        asked = {"modality": modality, "where": where_to_json(where), "keys": None if keys is None else list(keys)}
        vectors, items = self._call("select", **asked).parts
        return vectors_from_bytes(vectors, self.dim), table_from_bytes(items)

    def facets(self, column: str, where: Where | None = None, limit: int = 20) -> dict[str, int]:
        """Return the most frequent values of a column, with their numbers of rows.

        Args:
            column: one of ``columns``.
            where: only the rows that have these values.
            limit: number of values.
        """
        return dict(self._call("facets", column=column, where=where_to_json(where), limit=limit).content["facets"])

    def close(self) -> None:
        """Release the index; the engine is not used afterwards."""
        self._connection.close()
