"""Hard negatives: candidates that score nearly as high as a row's own value, but are not true of it."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

BLOCK = 2**24  # scores in memory at a time
MORE = 4  # candidates that an index is asked for, for each one that is wanted
MOST = 4096  # candidates that are looked at; a row with none among them has no negative

# queries, number of candidates -> for each query, positions of candidates and their scores, the best first
Nearest = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
NONE = -1


def highest_allowed(positives: np.ndarray, ratio: float) -> np.ndarray:
    """Return the score that a negative may have at most, ``(q,)``: the fraction ``ratio`` of the positive's.

    Candidates above it may be true of the row, under another name: NV-Retriever's TopK-PercPos (Moreira et al. 2024), which
    is ``ratio`` times the score. Of a score below 0, that would be above the score itself, and candidates that are nearer to
    the row than its own value would be negatives; so the same margin, a share of the score's size, is subtracted here.

    Args:
        positives: ``(q,)`` scores of the rows' own values.
        ratio: in (0, 1].

    Examples:
        >>> highest_allowed(np.array([0.8, -0.2]), 0.75).tolist()
        [0.6000000000000001, -0.25]
    """
    return positives - (1 - ratio) * np.abs(positives)


def allowed_places(
    candidates: np.ndarray, scores: np.ndarray, candidate_groups: np.ndarray, right: Collection[int], limit: float
) -> list[int]:
    """Return which of the candidates that a search found may be negatives: the best of each other group, below a limit.

    Args:
        candidates: ``(k,)`` positions of candidates, the best first; -1: none.
        scores: ``(k,)`` their scores.
        candidate_groups: ``(m,)`` integer groups of all candidates.
        right: groups that are true of the row.
        limit: see ``highest_allowed``.

    Examples:
        >>> found, scores = np.array([3, 0, 2, 1]), np.array([0.9, 0.8, 0.5, 0.4])
        >>> allowed_places(found, scores, candidate_groups=np.array([0, 1, 1, 2]), right={0}, limit=0.8)
        [2]
    """
    kept: dict[int, int] = {}  # group -> its place among those that were found
    for place, (candidate, score) in enumerate(zip(candidates.tolist(), scores.tolist(), strict=True)):
        if candidate != NONE and score <= limit and (group := int(candidate_groups[candidate])) not in right:
            kept.setdefault(group, place)
    return list(kept.values())


def exact_nearest(candidates: np.ndarray) -> Nearest:
    """Return a search that compares every candidate.

    Args:
        candidates: ``(m, d)`` unit vectors.

    Examples:
        >>> exact_nearest(np.eye(3, dtype=np.float32))(np.array([[0.6, 0.8, 0.0]], dtype=np.float32), 2)[0].tolist()
        [[1, 0]]
    """

    def nearest(queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        count = min(count, len(candidates))
        found = np.zeros((len(queries), count), dtype=np.int64)
        scores = np.zeros((len(queries), count), dtype=np.float32)
        step = max(1, BLOCK // max(1, len(candidates)))
        for start in range(0, len(queries), step):
            block = queries[start : start + step] @ candidates.T
            part = np.argpartition(-block, count - 1, axis=1)[:, :count] if count < block.shape[1] else None
            part = np.tile(np.arange(block.shape[1]), (len(block), 1)) if part is None else np.sort(part, axis=1)
            of_part = np.take_along_axis(block, part, axis=1)
            order = np.argsort(-of_part, axis=1, kind="stable")
            found[start : start + step] = np.take_along_axis(part, order, axis=1)
            scores[start : start + step] = np.take_along_axis(of_part, order, axis=1)
        return found, scores

    return nearest


def hard_negatives(
    queries: np.ndarray,
    groups: np.ndarray,
    positives: np.ndarray,
    candidate_groups: np.ndarray,
    nearest: Nearest,
    count: int = 1,
    ratio: float = 0.95,
    skip: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest candidates of other groups that score below a fraction of the row's own value.

    Args:
        queries: ``(q, d)`` unit vectors.
        groups: ``(q,)`` integer groups of the queries.
        positives: ``(q,)`` scores of the queries' own values.
        candidate_groups: ``(m,)`` integer groups of the candidates.
        nearest: finds the nearest candidates.
        count: negatives of each query, at least 1; at most one of a group. They are among the nearest 4,096 candidates.
        ratio: see ``highest_allowed``.
        skip: how many of the nearest allowed candidates are skipped.

    Returns:
        ``(q, count)`` int64 positions of candidates, -1 where there are no more, and ``(q, count)`` float32 scores.

    Examples:
        >>> candidates = np.array([[1, 0], [0.98, 0.199], [0.8, 0.6], [0, 1]], dtype=np.float32)
        >>> query, one = candidates[:1], np.array([1.0])
        >>> hard_negatives(query, np.array([0]), one, np.arange(4), exact_nearest(candidates))[0].tolist()
        [[2]]
    """
    limits = highest_allowed(positives.astype(np.float64), ratio)
    found = np.full((len(queries), count), NONE, dtype=np.int64)
    scores = np.zeros((len(queries), count), dtype=np.float32)
    open_rows, asked = np.arange(len(queries)), MORE * (count + skip)
    while len(open_rows):
        positions, of_candidates = nearest(queries[open_rows], asked)
        short = []
        for row, places, values in zip(open_rows.tolist(), positions, of_candidates, strict=True):
            kept = allowed_places(places, values, candidate_groups, {int(groups[row])}, limits[row])
            chosen = kept[skip : skip + count]
            if len(kept) < count + skip and asked < MOST and len(places) >= asked:  # there may be more
                short.append(row)
                continue
            found[row, : len(chosen)] = places[chosen]
            scores[row, : len(chosen)] = values[chosen]
        open_rows, asked = np.array(short, dtype=np.int64), asked * MORE
    return found, scores
