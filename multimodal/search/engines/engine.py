"""Interface of a search engine."""

from __future__ import annotations

from typing import Protocol

import numpy as np

Found = tuple[np.ndarray, np.ndarray]  # (m,) int64 rows and (m,) float32 scores, the best first


class Engine(Protocol):
    """Stored vectors that can be searched by cosine."""

    def nearest(self, queries: np.ndarray, count: int, among: np.ndarray | None = None) -> list[Found]:
        """Find the stored vectors nearest to each query.

        Args:
            queries: ``(q, dim)`` float32 of unit length.
            count: number of vectors to find for each query, at least 1. More are returned if further vectors score the
                same as the last; fewer if fewer are stored.
            among: ``(m,)`` int64, ascending: the rows to search. None: all.

        Returns:
            For each query, the rows and their scores in [-1, 1], the best first; equal scores are ordered by row.
        """
        ...
