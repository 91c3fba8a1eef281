"""Assignment of groups of rows to splits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from multimodal.core.batch import stable_hash

DEFAULT_SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def assign_splits(groups: Iterable[str], shares: Mapping[str, float], seed: int) -> list[str]:
    """Return the split of each group, which depends only on its name, the shares and the seed.

    It is independent of the other groups, so that it does not change when rows are added.

    Args:
        groups: names of the groups.
        shares: split -> its share of the groups; the shares add up to 1.
        seed: another seed gives an independent assignment.

    Examples:
        >>> assign_splits(["cups", "jugs", "pots"], {"train": 0.5, "test": 0.5}, seed=1)
        ['train', 'test', 'test']
    """
    names = list(shares)
    return [names[number] for number in assign_split_numbers(groups, shares, seed).tolist()]


def assign_split_numbers(groups: Iterable[str], shares: Mapping[str, float], seed: int) -> np.ndarray:
    """Return the position in ``shares`` of each group's split, ``(groups,)`` int64.

    Args:
        groups, shares, seed: see ``assign_splits``.
    """
    positions = np.fromiter((stable_hash(f"{seed} {group}") for group in groups), dtype=np.int64) / 2**63
    bounds = np.cumsum(list(shares.values()))[:-1]
    return np.searchsorted(bounds, positions, side="right")
