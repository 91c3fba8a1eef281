"""Drift of what is asked: the latest queries of each modality, compared with a reference now and then, in a thread."""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from multimodal.monitor.drift import MIN_ROWS, compare_modality
from multimodal.monitor.drift_result import ModalityDrift
from multimodal.monitor.vector_sets import ALONE, Vectors, VectorSet, chosen_vectors

WINDOW = 500  # queries
EVERY = 100  # queries
REFERENCE_ROWS = 500
PERMUTATIONS = 999
NICENESS = 10  # of the thread


@dataclass(frozen=True)
class WindowDrift:
    """The latest comparison of a modality.

    Attributes:
        queries: number of queries in the window.
        checks: number of comparisons that were made.
        found: the comparison.
    """

    queries: int
    checks: int
    found: ModalityDrift


class DriftWindow:
    """Compares the latest 500 queries of each modality with a reference, after every 100 queries.

    Args:
        reference: vectors of earlier queries; of each modality, 500 are used.
        window: number of queries that are compared.
        every: number of queries after which they are compared again.

    Attributes:
        latest: modality -> its latest comparison.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> vectors = rng.standard_normal((200, 4)).astype(np.float32)
        >>> vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        >>> names = np.array([f"#{n}" for n in range(200)])
        >>> reference = VectorSet("queries", "f" * 64, {"text": Vectors(vectors, names, names, np.array(["{}"] * 200))})
        >>> watched = DriftWindow(reference, every=50)
        >>> for number in range(50):
        ...     watched.add("f" * 64, "text", np.array([1.0, 0, 0, 0], dtype=np.float32), f"q{number}")
        >>> watched.close()
        >>> watched.latest["text"].found.p_value
        0.001
    """

    def __init__(self, reference: VectorSet, window: int = WINDOW, every: int = EVERY) -> None:
        self.fingerprint = reference.fingerprint
        self._reference = {
            modality: of.take(np.arange(min(len(of), REFERENCE_ROWS)))
            for modality, of in reference.modalities.items()
            if len(of) >= MIN_ROWS
        }
        self._window, self._every = window, every
        self._queries: dict[str, deque[tuple[np.ndarray, str, str]]] = {}
        self._new: dict[str, int] = {}
        self._checks: dict[str, int] = {}
        self._changed = threading.Condition()
        self._closed = False
        self.latest: dict[str, WindowDrift] = {}
        self._thread = threading.Thread(target=self._work, name="multimodal-drift", daemon=True)
        self._thread.start()

    @property
    def modalities(self) -> list[str]:
        """The modalities with at least 20 vectors in the reference, which are watched."""
        return list(self._reference)

    def add(self, fingerprint: str, modality: str, vector: np.ndarray, query_id: str, user: str | None = None) -> None:
        """Add a query, which takes no time; one of another model than the reference's is ignored.

        Args:
            fingerprint: of the model that computed the vector.
            modality: of the query.
            vector: ``(dim,)`` of unit length.
            query_id: names the query.
            user: of whose queries one counts. None: unknown.
        """
        if modality not in self._reference or fingerprint != self.fingerprint:
            return
        with self._changed:
            kept = self._queries.setdefault(modality, deque(maxlen=self._window))
            kept.append((vector, query_id, f"={user}" if user else f"{ALONE}{query_id}"))
            self._new[modality] = self._new.get(modality, 0) + 1
            if self._new[modality] >= self._every:
                self._changed.notify()

    def close(self) -> None:
        """Finish the comparisons that are due, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _due(self) -> str | None:
        return next((modality for modality, count in self._new.items() if count >= self._every), None)

    def _work(self) -> None:
        with suppress(OSError, AttributeError):  # requests come first; only Linux has priorities of threads
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._due() is not None)
                modality = self._due()
                if modality is None:
                    return
                self._new[modality] = 0
                queries = list(self._queries[modality])
            self._check(modality, queries)

    def _check(self, modality: str, queries: list[tuple[np.ndarray, str, str]]) -> None:
        vectors, ids, units = zip(*queries, strict=True)
        empty = np.full(len(ids), "{}", object)
        window = Vectors(np.stack(vectors).astype(np.float32), np.array(ids, str), np.array(units, str), empty)
        current = chosen_vectors("the queries", [(modality, window)], self._window, 0)[0][modality]
        if len(current) < MIN_ROWS:  # of few users
            return
        checks = self._checks[modality] = self._checks.get(modality, 0) + 1
        found = compare_modality(self._reference[modality], current, np.random.default_rng(checks), PERMUTATIONS)
        self.latest[modality] = WindowDrift(len(current), checks, found)
