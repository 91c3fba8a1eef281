"""What workers record of searches, sent to the process that has the log of queries and the window of drift.

There is one log and one window for all workers. A worker sends what has come a few times a second, in a thread; what it had not
sent when it was killed is lost.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from typing import Any

import numpy as np

from multimodal.core.errors import MultimodalError
from multimodal.monitor.drift_window import WindowDrift
from multimodal.monitor.query_log import LoggedQuery
from multimodal.serve.watch import Watch
from multimodal.serve.workers.messages import Message, vectors_from_bytes, vectors_to_bytes
from multimodal.serve.workers.remote_engine import Link

CALL = "record"
EVERY = 0.2  # seconds
MAX_WAITING = 20_000  # entries in memory; further ones are dropped and counted
AT_ONCE = 500  # entries in a message


class SentQueries:
    """A ``QueryLog`` and a ``DriftWindow`` for a worker's ``Watch``, which sends what they would record.

    Args:
        link: the way to the process that has them.

    Attributes:
        dropped: always 0: the other process counts what is dropped.
        latest: always empty: the other process compares.

    Examples:
        >>> from ctypes import c_ulonglong
        >>> from pathlib import Path
        >>> sent = SentQueries(Link(Path("index"), Path("socket"), c_ulonglong(0)))
        >>> sent.dropped, sent.latest
        (0, {})
        >>> sent.close()
    """

    def __init__(self, link: Link) -> None:
        self.dropped, self.latest = 0, dict[str, WindowDrift]()
        self._link = link
        self._waiting: deque[tuple[dict[str, Any], np.ndarray | None]] = deque()
        self._lost = 0  # not reported yet
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="multimodal-record", daemon=True)
        self._thread.start()

    def append(self, *queries: LoggedQuery) -> None:
        """Record queries for the log, which takes no time."""
        for query in queries:
            fields = {name: value for name, value in vars(query).items() if name != "vector"}
            self._add({**fields, "scores": [float(score) for score in query.scores]}, query.vector)

    def add(self, fingerprint: str, modality: str, vector: np.ndarray, query_id: str, user: str | None = None) -> None:
        """Record a query for the window of drift, which takes no time.

        Args:
            fingerprint: of the model that computed the vector.
            modality: of the query.
            vector: ``(dim,)`` of unit length.
            query_id: names the query.
            user: who asked. None: unknown.
        """
        given = {"fingerprint": fingerprint, "modality": modality, "query_id": query_id, "user": user, "drift": True}
        self._add(given, vector)

    def _add(self, entry: dict[str, Any], vector: np.ndarray | None) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._lost += not entry.get("drift")
            return
        self._waiting.append((entry, vector))

    def close(self) -> None:
        """Send what is in memory, and end the thread."""
        self._closed.set()
        self._thread.join()

    def _work(self) -> None:
        closed = False
        while not closed:
            closed = self._closed.wait(EVERY)
            while self._waiting or self._lost:
                entries = [self._waiting.popleft() for _ in range(min(len(self._waiting), AT_ONCE))]
                lost, self._lost = self._lost, 0
                vectors = [vector for _, vector in entries if vector is not None]
                content = {
                    "entries": [{**entry, "has_vector": vector is not None} for entry, vector in entries],
                    "lost": lost,
                }
                with suppress(MultimodalError):  # without the other process, this one ends soon
                    self._link.call(CALL, content, [vectors_to_bytes(vector) for vector in vectors])


def record_sent(watch: Watch, call: Message) -> Message:
    """Record what a worker has sent.

    Args:
        watch: has the log, and the window.
        call: the worker's message.
    """
    parts = iter(call.parts)
    for entry in call.content["entries"]:
        vector = vectors_from_bytes(part := next(parts), dim=len(part) // 4)[0] if entry.pop("has_vector") else None
        if entry.pop("drift", False):
            if watch.drift is not None and vector is not None:
                watch.drift.add(vector=vector, **entry)
        elif watch.log is not None:
            watch.log.append(LoggedQuery(vector=vector, **entry))
    if watch.log is not None:
        watch.log.dropped += call.content["lost"]
    return Message({})
