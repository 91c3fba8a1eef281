"""Which split each row goes to, so that nothing stands in two."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from multimodal.prepare.distinct_values import MISSING


def components(count: int, links: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """The component of each row: rows that links or equal groups join, however long the way.

    Args:
        count: n rows.
        links: ``(m, 2)`` pairs of rows.
        groups: ``(n,)`` the number of each row's group, -1 for none.

    Returns:
        ``(n,)`` int32, numbers from 0.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = [links]
    if groups is not None:
        rows = np.flatnonzero(groups != MISSING)
        _, first, inverse = np.unique(groups[rows], return_index=True, return_inverse=True)
        edges.append(np.stack([rows, rows[first[inverse]]], axis=1))
    a, b = np.concatenate(edges).T
    graph = coo_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(count, count))
    return connected_components(graph, directed=False)[1] if count else np.zeros(0, dtype=np.int32)


def assign_components(component: np.ndarray, shares: Mapping[str, float], seed: int) -> np.ndarray:
    """The split of each row, ``(n,)`` the number of its name in ``shares``: whole components, near the shares.

    The largest components come first, equal ones in an order that the seed decides; each goes to the split that lacks
    most rows. A split that got none takes the smallest component of the split that has most of them, if that has two.
    """
    sizes = np.bincount(component)
    shuffled = np.random.default_rng(seed).permutation(len(sizes))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    lacking = np.array(list(shares.values())) * len(component)
    split_of = np.zeros(len(sizes), dtype=np.int64)
    for c in order.tolist():
        split_of[c] = to = int(lacking.argmax())
        lacking[to] -= sizes[c]
    for empty in range(len(lacking)):
        had = np.bincount(split_of, minlength=len(lacking))
        if not had[empty] and had.max() > 1:
            split_of[order[split_of[order] == had.argmax()][-1]] = empty
    return split_of[component]


def balance_mask(values: np.ndarray, seed: int) -> np.ndarray:
    """Which rows stay if each value keeps as many rows as the rarest has: ``(n,)`` bool; none without a value stays.

    Args:
        values: ``(n,)`` the number of each row's value, -1 for none.
        seed: which rows of the others stay.
    """
    counts = np.bincount(values[values != MISSING])
    keep = counts[counts > 0].min(initial=len(values))
    order = np.random.default_rng([seed, 1]).permutation(len(values))
    stays = np.zeros(len(values), dtype=bool)
    for number in np.flatnonzero(counts).tolist():
        stays[order[values[order] == number][:keep]] = True
    return stays


def count_crossing_rows(component: np.ndarray, split: np.ndarray) -> int:
    """How many rows are in a component that is in several splits; both ``(n,)``."""
    pairs = np.unique(np.stack([component, split], axis=1), axis=0)
    different, counts = np.unique(pairs[:, 0], return_counts=True)
    return int(np.isin(component, different[counts > 1]).sum())
