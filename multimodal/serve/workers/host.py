"""The index of a server with several workers: one process has it open, and makes what the workers ask for.

1. A worker opens the index by a connection that it keeps; the index is released when this connection ends, however the worker
   ends. Workers that open an index of the same model share one.
2. Each further connection is answered by a thread of its own, one call after another.
3. A change is made by one thread at a time, and counted before it is acknowledged (``changes``, in memory that the workers
   share), so that a worker asks again for what it knew about the index.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from multimodal.core.errors import MultimodalError
from multimodal.core.system_errors import system_fault
from multimodal.search.engines.engine import Engine
from multimodal.search.index_folder import IndexFolder, open_index_folder, read_index_description
from multimodal.serve.workers.messages import (
    Message,
    error_to_json,
    found_to_json,
    table_from_bytes,
    table_to_bytes,
    vectors_from_bytes,
    vectors_to_bytes,
    where_of_json,
)

MAX_PATH = 100  # bytes of the path of a Unix domain socket; systems have room for 104 or 108
BACKLOG = 64

Call = Callable[[Message], Message]


class Counter(Protocol):
    """A number in memory that processes share."""

    value: int


class _Opened:
    """An open index, and how many use it."""

    def __init__(self, folder: IndexFolder) -> None:
        self.engine: Engine = folder.engine
        self.description = folder.description
        self.users = 0
        self.changing = threading.Lock()


class IndexHost:
    """Answers the calls of workers to the index in a folder.

    Args:
        folder: the folder of the index.
        path: of the socket, in a folder that no other user can enter.
        changes: is increased by every change.

    Attributes:
        calls: further calls that workers may make, by their names.

    Raises:
        MultimodalError: the path is too long.

    Examples:
        >>> import multimodal as mm
        >>> from ctypes import c_ulonglong
        >>> from multimodal.serve.workers.remote_engine import Link
        >>> embedder = mm.Embedder({"text": mm.create("text", "bag")}, dim=8)
        >>> embedder.fit_processors({"text": ["a red cup", "a red mug"]})
        >>> mm.Index.from_table(embedder, [{"name": "a red cup"}], columns={"text": "name"}).save("index")
        >>> changes = c_ulonglong(0)
        >>> host = IndexHost(Path("index"), Path("socket"), changes)
        >>> opened = Link(Path("index"), Path("socket"), changes).open()
        >>> opened.engine.modalities, opened.engine.count("text")
        (['text'], 1)
        >>> opened.engine.close()
        >>> host.close()
    """

    def __init__(self, folder: Path, path: Path, changes: Counter) -> None:
        if len(os.fsencode(path)) > MAX_PATH:
            raise MultimodalError(
                f"The folder for temporary files, {path.parent.parent}, has too long a name for a socket; name a shorter one"
                " by the variable TMPDIR."
            )
        self._folder, self._changes = folder, changes
        self.calls: dict[str, Call] = {}
        self._opened: dict[str, _Opened] = {}  # fingerprint -> its index
        self._handles: dict[int, _Opened] = {}
        self._last_handle = 0
        self._newest: int | None = None  # is kept open between two workers
        self._opening = threading.RLock()  # may be held for seconds, when a large index is opened
        self._noting = threading.Lock()
        self._closed = False
        self._answering: dict[Connection, threading.Thread] = {}
        self._path = str(path)
        self._listener = Listener(self._path, "AF_UNIX", backlog=BACKLOG)
        path.chmod(0o600)
        self._accepting = threading.Thread(target=self._accept, name="multimodal-host", daemon=True)
        self._accepting.start()

    def open(self) -> tuple[int, IndexFolder]:
        """Open the index; return a number for calls to it, and what was opened.

        Raises:
            MultimodalError: it cannot be opened.
        """
        with self._opening:
            opened = self._opened.get(read_index_description(self._folder)["fingerprint"])
            if opened is None:
                folder = open_index_folder(self._folder)
                opened = self._opened.setdefault(folder.description["fingerprint"], _Opened(folder))
                if opened.engine is not folder.engine:  # it was put in the place of another in between
                    folder.engine.close()
            handle = self._handle(opened)
            if self._newest is None or self._handles[self._newest] is not opened:
                former, self._newest = self._newest, self._handle(opened)
                if former is not None:
                    self.release(former)
            return handle, IndexFolder(opened.engine, opened.description)

    def _handle(self, opened: _Opened) -> int:
        self._last_handle += 1
        opened.users += 1
        self._handles[self._last_handle] = opened
        return self._last_handle

    def release(self, handle: int) -> None:
        """Close an index, unless others use it."""
        with self._opening:
            opened = self._handles.pop(handle)
            opened.users -= 1
            if not opened.users:
                self._opened = {name: other for name, other in self._opened.items() if other is not opened}
                opened.engine.close()

    def close(self) -> None:
        """End the connections, and close the index."""
        with self._noting:
            self._closed = True
            answering = dict(self._answering)
        with suppress(OSError), Client(self._path, "AF_UNIX"):  # ends the thread that waits for one
            pass
        self._accepting.join()
        self._listener.close()
        for connection, thread in answering.items():
            with suppress(OSError):  # its thread has closed it
                _end_of(connection)
            thread.join()  # what it makes is made first
        for handle in list(self._handles):
            with suppress(KeyError):
                self.release(handle)

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except OSError:  # the worker was killed in this moment, or there are too many files
                time.sleep(0.01)
                continue
            with self._noting:
                if self._closed:
                    connection.close()
                    return
                thread = threading.Thread(target=self._answer, args=(connection,), name="multimodal-host", daemon=True)
                self._answering[connection] = thread
            thread.start()

    def _answer(self, connection: Connection) -> None:
        held: list[int] = []
        try:
            with suppress(EOFError, OSError):
                while True:
                    connection.send_bytes(self._made(connection.recv_bytes(), held))
        finally:
            with self._noting:
                self._answering.pop(connection, None)
            connection.close()
            for handle in held:
                with suppress(KeyError):
                    self.release(handle)

    def _made(self, received: bytes, held: list[int]) -> bytes:
        """Return the answer to a call.

        Args:
            received: the call.
            held: gets the numbers of what this connection has opened.
        """
        try:
            call = Message.from_bytes(received)
            return self._make(call, held).to_bytes()
        except MultimodalError as error:
            return Message({"error": error_to_json(error)}).to_bytes()
        except Exception as error:  # a defect, of which the worker reports only that there is one
            traceback.print_exc(file=sys.stderr)
            fault = system_fault(error)
            reason = type(error).__name__ if fault is None else fault.advice
            failed = MultimodalError(f"The process that has the index failed ({reason}).")
            failed.__cause__ = error
            return Message({"error": error_to_json(failed)}).to_bytes()

    def _make(self, call: Message, held: list[int]) -> Message:
        name = call.content["call"]
        if name == "open":
            handle, folder = self.open()
            held.append(handle)
            return Message({"handle": handle, "description": folder.description, **_state(folder.engine)})
        if name in self.calls:
            return self.calls[name](call)
        opened = self._handles[call.content["handle"]]
        return _CALLS[name](opened, call, self._count_change)

    def _count_change(self) -> None:
        with self._noting:
            self._changes.value += 1


def _state(engine: Engine) -> dict[str, Any]:
    """What a worker may keep until the next change."""
    return {
        "name": engine.name,
        "dim": engine.dim,
        "grouped": engine.grouped,
        "modalities": [*engine.modalities],
        "columns": [*engine.columns],
    }


# -- the calls: what is asked for, of which index, and what counts a change


def _describe(opened: _Opened, call: Message, changed: Callable[[], None]) -> Message:
    return Message(_state(opened.engine))


def _count(opened: _Opened, call: Message, changed: Callable[[], None]) -> Message:
    return Message({"count": opened.engine.count(call.content["modality"])})


def _kinds(opened: _Opened, call: Message, changed: Callable[[], None]) -> Message:
    return Message({"kinds": sorted(opened.engine.kinds(call.content["column"]))})


def _nearest(opened: _Opened, call: Message, changed: Callable[[], None]) -> Message:
    asked, queries = call.content, _queries(opened, call)
    found = opened.engine.nearest(
        queries, asked["count"], asked["modality"], where_of_json(asked["where"]), asked["exact"]
    )
    return Message({"found": found_to_json(found)})


def _nearest_by_words(opened: _Opened, call: Message, changed: Callable[[], None]) -> Message:
    asked, (query,) = call.content, _queries(opened, call)
    found = opened.engine.nearest_by_words(
        query, asked["words"], asked["count"], asked["modality"], where_of_json(asked["where"])
    )
    return Message({"found": found_to_json([found])})


def _select(opened: _Opened, call: Message, changed: Callable[[], None]) -> Message:
    asked = call.content
    vectors, items = opened.engine.select(asked["modality"], where_of_json(asked["where"]), asked["keys"])
    return Message({}, [vectors_to_bytes(vectors), table_to_bytes(items)])


def _facets(opened: _Opened, call: Message, changed: Callable[[], None]) -> Message:
    asked = call.content
    return Message(
        {"facets": list(opened.engine.facets(asked["column"], where_of_json(asked["where"]), asked["limit"]).items())}
    )


def _upsert(opened: _Opened, call: Message, changed: Callable[[], None]) -> Message:
    with opened.changing:
        try:
            opened.engine.upsert([table_from_bytes(part) for part in call.parts])
        finally:  # some of it may have been made
            changed()
    return Message({})


def _remove(opened: _Opened, call: Message, changed: Callable[[], None]) -> Message:
    with opened.changing:
        try:
            return Message({"removed": opened.engine.remove(call.content["keys"])})
        finally:
            changed()


_CALLS: dict[str, Callable[[_Opened, Message, Callable[[], None]], Message]] = {
    "describe": _describe,
    "count": _count,
    "kinds": _kinds,
    "nearest": _nearest,
    "nearest_by_words": _nearest_by_words,
    "select": _select,
    "facets": _facets,
    "upsert": _upsert,
    "remove": _remove,
}


def _queries(opened: _Opened, call: Message) -> np.ndarray:
    return vectors_from_bytes(call.parts[0], opened.engine.dim)


def _end_of(connection: Connection) -> None:
    """End a connection by which a thread waits for the next call; to close it would leave the thread waiting."""
    with socket.socket(fileno=os.dup(connection.fileno())) as other:
        other.shutdown(socket.SHUT_RDWR)
