"""Exact search: every stored vector is compared with every query."""

from __future__ import annotations

import numpy as np

from multimodal.search.engines.engine import Found

SCORES = 1 << 25  # scores held at a time: 128 MiB


class ExactEngine:
    """Stored vectors that are searched one by one, by matrix products.

    Args:
        vectors: ``(n, dim)`` float32 of unit length, in memory or memory-mapped.
    """

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors

    def nearest(self, queries: np.ndarray, count: int, among: np.ndarray | None = None) -> list[Found]:
        """See ``Engine.nearest``."""
        stored = self.vectors if among is None else self.vectors[among]
        at_once = max(1, SCORES // max(1, len(stored)))
        found = []
        for start in range(0, len(queries), at_once):
            for scores in (queries[start : start + at_once] @ stored.T).clip(-1, 1):
                best = _best(scores, count)
                found.append((best if among is None else among[best], scores[best]))
        return found


def _best(scores: np.ndarray, count: int) -> np.ndarray:
    """The positions of the highest scores, the highest first, with all that equal the last of ``count``."""
    best = np.arange(len(scores))
    if count < len(scores):
        best = np.flatnonzero(scores >= np.partition(scores, -count)[-count])
    return best[np.lexsort((best, -scores[best]))]
