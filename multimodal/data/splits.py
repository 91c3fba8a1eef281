"""Default shares of splits, and which split a group of rows belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from multimodal.core.batch import stable_hash

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def dealt(groups: Iterable[str], shares: Mapping[str, float], seed: int) -> list[str]:
    """The split of each group: a function of its name, the shares and the seed, whatever other groups there are."""
    names = list(shares)
    return [names[number] for number in assign_split_numbers(groups, shares, seed).tolist()]


def assign_split_numbers(groups: Iterable[str], shares: Mapping[str, float], seed: int) -> np.ndarray:
    """As ``dealt``, with the positions of the splits in ``shares``; ``(groups,)`` int64."""
    positions = np.fromiter((stable_hash(f"{seed} {group}") for group in groups), dtype=np.int64) / 2**63
    bounds = np.cumsum(list(shares.values()))[:-1]
    return np.searchsorted(bounds, positions, side="right")
