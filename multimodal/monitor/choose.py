"""Which rows to pair next: by how uncertain the model is of them, and by how far they are from what is paired."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Literal, NamedTuple, get_args

import numpy as np

from multimodal.core.errors import UsageError, suggest

By = Literal["all", "covered", "diverse", "uncertain", "random"]
BLOCK = 2**24  # scores in memory at a time
REFERENCE = 4096  # rows whose coverage is summed up


class Chosen(NamedTuple):
    """Rows in the order in which they were chosen.

    Attributes:
        rows: ``(count,)`` int64, positions among the rows that were chosen from.
        distances: ``(count,)`` float32, how far each was from the labelled rows and those chosen before: 1 - cosine, in [0, 2].

    Examples:
        >>> Chosen(np.array([3]), np.array([0.5], np.float32)).rows.tolist()
        [3]
    """

    rows: np.ndarray
    distances: np.ndarray


def margins(queries: np.ndarray, candidates: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return by how much the best candidate of each query scores above the best one of another group.

    Args:
        queries: ``(q, d)`` unit vectors.
        candidates: ``(m, d)`` unit vectors.
        groups: ``(m,)`` integer groups of the candidates.

    Returns:
        ``(q,)`` float32 margins in [0, 2]; NaN where there are not two groups.

    Examples:
        >>> vectors = np.array([[1, 0], [0.8, 0.6], [0, 1]], dtype=np.float32)
        >>> margins(vectors[:1], vectors, np.array([7, 7, 8])).tolist()
        [1.0]
    """
    found = np.full(len(queries), np.nan, dtype=np.float32)
    if len(np.unique(groups)) < 2:
        return found
    step = max(1, BLOCK // len(candidates))
    for start in range(0, len(queries), step):
        scores = queries[start : start + step] @ candidates.T
        best = scores.argmax(axis=1)
        first = scores[np.arange(len(scores)), best]
        scores[groups[best][:, None] == groups] = -np.inf
        found[start : start + step] = first - scores.max(axis=1)
    return found


def distances_to(vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the distance of each vector to the nearest of others, 1 - cosine: ``(n,)`` float32; 2 if there are none.

    Args:
        vectors: ``(n, d)`` unit vectors.
        others: ``(m, d)`` unit vectors.

    Examples:
        >>> distances_to(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)[:1]).tolist()
        [0.0, 1.0]
    """
    nearest = np.full(len(vectors), 2, dtype=np.float32)
    if not len(others):
        return nearest
    step = max(1, BLOCK // len(others))
    for start in range(0, len(vectors), step):
        nearest[start : start + step] = 1 - (vectors[start : start + step] @ others.T).max(axis=1)
    return nearest.clip(0, 2)


def quantiles(values: np.ndarray) -> np.ndarray:
    """Return which fraction of the values is at most as large as each, ``(n,)`` in (0, 1]; equal values have equal ones.

    Examples:
        >>> quantiles(np.array([3.0, 1.0, 1.0, 2.0])).tolist()
        [1.0, 0.5, 0.5, 0.75]
    """
    return np.searchsorted(np.sort(values), values, side="right") / max(1, len(values))


def choose(
    vectors: np.ndarray,
    labelled: np.ndarray,
    uncertainty: np.ndarray,
    count: int,
    by: By = "all",
    seed: int = 0,
) -> Chosen:
    r"""Choose rows to label, one after another.

    With :math:`d_{ij}` the distance 1 - cosine of two rows, :math:`D_j` that of row j to the nearest labelled or chosen row,
    and :math:`U_i` the quantile of the uncertainty of row i, the next row is the one with the largest

    - ``covered``: :math:`C_i = \sum_j \max(0, D_j - d_{ij})`, by how much nearer all rows would be to a labelled one: greedy
      facility location (Wei et al. 2015), which prefers regions with many rows;
    - ``all``: :math:`U_i C_i`: uncertain, in a region that is badly covered, and unlike those chosen before;
    - ``diverse``: :math:`D_i`: k-center greedy (Gonzalez 1985; Sener and Savarese 2018, algorithm 1), which also finds
      outliers;
    - ``uncertain``: :math:`U_i`;
    - ``random``: any, to compare with.

    Ties are decided by the order of the rows. The sum is over at most 4,096 rows, drawn at random.

    Args:
        vectors: ``(n, d)`` unit vectors of the rows to choose from.
        labelled: ``(m, d)`` unit vectors of the rows that are paired.
        uncertainty: ``(n,)``, larger where the model is less certain; see ``margins``, whose negatives are such.
        count: number of rows to choose, at least 1; at most n are.
        by: see above.
        seed: of what is drawn.

    Raises:
        UsageError: ``by`` is unknown, or ``count`` below 1.

    Examples:
        >>> vectors = np.array([[1, 0], [0.8, 0.6], [0, 1], [0, 1]], dtype=np.float32)
        >>> choose(vectors, vectors[:1], np.zeros(4), count=2).rows.tolist()
        [2, 1]
    """
    if by not in get_args(By):
        raise UsageError(f"by: there is no {by!r}.{suggest(str(by), list(get_args(By)))}")
    if count < 1:
        raise UsageError(f"count must be at least 1; got {count}.")
    count, rng = min(count, len(vectors)), np.random.default_rng(seed)
    nearest = distances_to(vectors, labelled)
    if by in ("covered", "all"):
        reference = np.sort(rng.permutation(len(vectors))[:REFERENCE])
        weights = quantiles(uncertainty) if by == "all" else np.ones(len(vectors))
        rows = _facility_location(vectors, vectors[reference], nearest[reference].astype(np.float64), weights, count)
    elif by == "diverse":
        rows = _k_center(vectors, nearest.copy(), count)
    else:
        order = rng.permutation(len(vectors)) if by == "random" else np.argsort(-uncertainty, kind="stable")
        rows = order[:count]
    distances = []
    for row in rows.tolist():
        distances.append(nearest[row])
        nearest = np.minimum(nearest, _distances(vectors, vectors[row]))
    return Chosen(np.asarray(rows, dtype=np.int64), np.array(distances, dtype=np.float32))


def _distances(vectors: np.ndarray, to: np.ndarray) -> np.ndarray:
    return (1 - vectors @ to).clip(0, 2)


def _k_center(vectors: np.ndarray, nearest: np.ndarray, count: int) -> np.ndarray:
    """Return the rows that k-center greedy chooses: each the farthest from those before."""
    rows = []
    for _ in range(count):
        rows.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, _distances(vectors, vectors[rows[-1]]))
        nearest[rows] = -1.0
    return np.array(rows)


def _facility_location(
    vectors: np.ndarray, reference: np.ndarray, nearest: np.ndarray, weights: np.ndarray, count: int
) -> np.ndarray:
    """Return the rows with the largest weighted gains, one after another.

    A gain never grows as rows are chosen, so only the largest ones are computed again (Minoux 1978, "lazy greedy").

    Args:
        vectors: ``(n, d)`` unit vectors to choose from.
        reference: ``(r, d)`` unit vectors that should be near to what is chosen.
        nearest: ``(r,)`` float64, how far each is from what is labelled.
        weights: ``(n,)``, by which gains are multiplied.
        count: number of rows.
    """
    gains = np.empty(len(vectors))
    step = max(1, BLOCK // len(reference))
    for start in range(0, len(vectors), step):
        block = _distances(vectors[start : start + step], reference.T)
        gains[start : start + step] = np.maximum(0, nearest - block).sum(axis=1)
    heap = [(-gain, row) for row, gain in enumerate((gains * weights).tolist())]
    heapify(heap)
    rows: list[int] = []
    while len(rows) < count:
        _, row = heappop(heap)
        distances = _distances(reference, vectors[row])
        gain = float(np.maximum(0, nearest - distances).sum() * weights[row])
        if heap and (-gain, row) > heap[0]:
            heappush(heap, (-gain, row))
            continue
        rows.append(row)
        nearest = np.minimum(nearest, distances)
    return np.array(rows)
