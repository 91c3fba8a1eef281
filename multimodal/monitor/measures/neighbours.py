"""Differences of two sets by nearest neighbours: whether the sets mix, and what is outside the reference."""

from __future__ import annotations

import numpy as np

NEIGHBOURS = 5
BLOCK = 256  # assignments, or rows, at a time


def nearest_rows(squared: np.ndarray, k: int = NEIGHBOURS) -> np.ndarray:
    """Return the k nearest other rows of each row, ``(n, k)``; of equally near ones, any.

    The rows have to be in random order: else equal rows would find those of their own set.

    Args:
        squared: ``(n, n)`` squared distances.
        k: number of neighbours; at most n - 1.

    Examples:
        >>> nearest_rows(np.array([[0.0, 1, 9], [1, 0, 4], [9, 4, 0]]), k=1).ravel()
        array([1, 0, 1])
    """
    others = squared.copy()
    np.fill_diagonal(others, np.inf)
    k = min(k, len(squared) - 1)
    return np.argpartition(others, k - 1, axis=1)[:, :k] if k else np.zeros((len(squared), 0), np.int64)


def same_set_shares(nearest: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """Return the fraction of neighbours that are in the row's own set, the mean of both sets, for each assignment.

    Args:
        nearest: ``(n, k)``, see ``nearest_rows``.
        sets: ``(b, n)`` bool, which rows are in the current set.

    Returns:
        ``(b,)`` in [0, 1].

    Source:
        Schilling, Multivariate Two-Sample Tests Based on Nearest Neighbors, JASA 1986; with the mean of both sets instead of
        that of all rows, a small set counts as much as a large one.

    Examples:
        >>> nearest = np.array([[1], [0], [3], [2]])
        >>> same_set_shares(nearest, np.array([[False, False, True, True], [False, True, False, True]]))
        array([1., 0.])
    """
    found = []
    for start in range(0, len(sets), BLOCK):
        block = sets[start : start + BLOCK]
        same = (block[:, nearest] == block[:, :, None]).mean(axis=2) if nearest.shape[1] else np.ones(block.shape)
        of_current = (same * block).sum(axis=1) / block.sum(axis=1)
        of_reference = (same * ~block).sum(axis=1) / (~block).sum(axis=1)
        found.append((of_current + of_reference) / 2)
    return np.concatenate(found)


def overlap(nearest: np.ndarray, current: np.ndarray) -> float:
    """Return how far the sets mix: 1 as randomly assigned rows do, 0 if no row has a neighbour in the other set.

    Args:
        nearest: ``(n, k)``, see ``nearest_rows``.
        current: ``(n,)`` bool.

    Returns:
        The fraction of neighbours in the other set, divided by that of a random assignment; at most about 2.

    Examples:
        >>> overlap(np.array([[1], [0], [3], [2]]), np.array([False, False, True, True]))
        0.0
    """
    m, n = int(current.sum()), int((~current).sum())
    expected = (n / (n + m - 1) + m / (n + m - 1)) / 2
    return float((1 - same_set_shares(nearest, current[None])[0]) / expected)


def distances_to_reference(
    rows: np.ndarray, reference: np.ndarray, same: np.ndarray, k: int = NEIGHBOURS
) -> np.ndarray:
    """Return the distance from each row to the k-th nearest row of the reference, ``(r,)``.

    Args:
        rows: ``(r, dim)``.
        reference: ``(n, dim)``, n at least 2.
        same: ``(r,)`` number of the reference row that is the same thing, and is left out; -1: there is none.
        k: which neighbour; if the reference has fewer others, the farthest.

    Examples:
        >>> reference = np.array([[0.0], [1.0], [3.0]])
        >>> distances_to_reference(reference, reference, np.arange(3), k=1)
        array([1., 1., 2.])
    """
    found = []
    kth = min(k, len(reference) - 1) - 1
    lengths = np.einsum("ij,ij->i", reference, reference)
    for start in range(0, len(rows), BLOCK):
        block, own = rows[start : start + BLOCK], same[start : start + BLOCK]
        squared = np.einsum("ij,ij->i", block, block)[:, None] + lengths[None] - 2 * (block @ reference.T)
        known = np.flatnonzero(own >= 0)
        squared[known, own[known]] = np.inf
        found.append(np.sqrt(np.maximum(np.partition(squared, kth, axis=1)[:, kth], 0)))
    return np.concatenate(found) if found else np.zeros(0)


def outside_shares(
    of_current: np.ndarray, of_reference: np.ndarray, levels: tuple[float, ...] = (0.95, 0.99)
) -> dict[str, float]:
    """Return the fraction of the current rows that are farther from the reference than its own rows are.

    Args:
        of_current: ``(m,)`` distances of the current rows, see ``distances_to_reference``.
        of_reference: ``(n,)`` distances of the reference rows to the others.
        levels: the fractions of the reference rows that are inside. Without drift, 1 - level of the current rows are outside.

    Returns:
        "95": the fraction, ...

    Examples:
        >>> outside_shares(np.array([0.5, 2.0]), np.linspace(0, 1, 101))
        {'95': 0.5, '99': 0.5}
    """
    return {f"{level * 100:g}": float((of_current > np.quantile(of_reference, level)).mean()) for level in levels}
