"""Exact search, which compares every stored vector with every query."""

from __future__ import annotations

import numpy as np

from multimodal.search.engines.engine import Found

SCORES = 1 << 25  # scores in memory at a time: 128 MiB
GATHERED_ROWS = 1 << 14  # stored vectors that are copied at a time when only some are searched


class ExactEngine:
    """Exact search of stored vectors by matrix products.

    Args:
        vectors: ``(n, dim)`` float32 of unit length, in memory or memory-mapped.

    Examples:
        >>> engine = ExactEngine(np.eye(3, dtype=np.float32))
        >>> ((rows, scores),) = engine.nearest(np.array([[0.6, 0, 0.8]], dtype=np.float32), count=2)
        >>> rows, scores
        (array([2, 0]), array([0.8, 0.6], dtype=float32))
    """

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors

    def nearest(self, queries: np.ndarray, count: int, among: np.ndarray | None = None) -> list[Found]:
        """Find the stored vectors nearest to each query, as ``Engine.nearest`` defines it.

        Args:
            queries: ``(q, dim)`` float32 of unit length.
            count: number of vectors to find for each query, at least 1; ties with the last are returned too.
            among: ``(m,)`` int64, ascending: the rows to search. None: all.

        Returns:
            For each query, ``(m,)`` int64 rows and float32 scores, the best first; equal scores are ordered by row.
        """
        stored = len(self.vectors) if among is None else len(among)
        at_once = max(1, SCORES // max(1, stored))
        found = []
        for start in range(0, len(queries), at_once):
            for scores in self._scores(queries[start : start + at_once], among):
                best = _best(scores, count)
                found.append((best if among is None else among[best], scores[best]))
        return found

    def _scores(self, queries: np.ndarray, among: np.ndarray | None) -> np.ndarray:
        """Return the cosines ``(q, m)`` of queries and stored vectors; those ``among`` them are copied a block at a time."""
        if among is None:
            scores = queries @ self.vectors.T
        else:
            scores = np.empty((len(queries), len(among)), np.float32)
            for start in range(0, len(among), GATHERED_ROWS):
                block = slice(start, start + GATHERED_ROWS)
                scores[:, block] = queries @ self.vectors[among[block]].T
        return np.clip(scores, -1, 1, out=scores)


def _best(scores: np.ndarray, count: int) -> np.ndarray:
    """Return the positions of the ``count`` highest scores and of ties with the last, the highest first."""
    best = np.arange(len(scores))
    if count < len(scores):
        best = np.flatnonzero(scores >= np.partition(scores, -count)[-count])
    return best[np.lexsort((best, -scores[best]))]
