"""Assignment of rows to splits so that linked rows are in one split."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from multimodal.prepare.distinct_values import MISSING


def components(count: int, links: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Find the connected components of rows that are joined by links or equal groups.

    Args:
        count: number of rows, n.
        links: ``(m, 2)`` pairs of rows.
        groups: ``(n,)`` number of each row's group, -1 for none.

    Returns:
        ``(n,)`` int32 component of each row, numbered from 0.
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
    """Assign components to splits so that the splits are close to their shares.

    Components are assigned from largest to smallest, equal ones in an order that depends on the seed, each to the split
    that is missing the most rows. A split without components then takes the smallest component of the split that has the
    most components, if that has at least two.

    Args:
        component: ``(n,)`` component of each row, numbered from 0 without gaps.
        shares: split -> its fraction of the rows.
        seed: seed of the order of equal components.

    Returns:
        ``(n,)`` int64 index of each row's split in ``shares``.
    """
    sizes = np.bincount(component)
    shuffled = np.random.default_rng(seed).permutation(len(sizes))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    missing_rows = np.array(list(shares.values())) * len(component)
    split_of = np.zeros(len(sizes), dtype=np.int64)
    for c in order.tolist():
        split_of[c] = to = int(missing_rows.argmax())
        missing_rows[to] -= sizes[c]
    for empty in range(len(missing_rows)):
        components_per_split = np.bincount(split_of, minlength=len(missing_rows))
        if not components_per_split[empty] and components_per_split.max() > 1:
            split_of[order[split_of[order] == components_per_split.argmax()][-1]] = empty
    return split_of[component]


def balance_mask(values: np.ndarray, seed: int) -> np.ndarray:
    """Choose at random, for each value, as many rows as the rarest value has.

    Args:
        values: ``(n,)`` number of each row's value, -1 for none.
        seed: seed of the choice.

    Returns:
        ``(n,)`` bool, the rows that are kept; rows without a value are not.
    """
    counts = np.bincount(values[values != MISSING])
    keep = counts[counts > 0].min(initial=len(values))
    order = np.random.default_rng([seed, 1]).permutation(len(values))
    kept = np.zeros(len(values), dtype=bool)
    for number in np.flatnonzero(counts).tolist():
        kept[order[values[order] == number][:keep]] = True
    return kept


def count_crossing_rows(component: np.ndarray, split: np.ndarray) -> int:
    """Count the rows whose component is in several splits; both arguments are ``(n,)`` integers."""
    pairs = np.unique(np.stack([component, split], axis=1), axis=0)
    distinct, counts = np.unique(pairs[:, 0], return_counts=True)
    return int(np.isin(component, distinct[counts > 1]).sum())
