"""Which of many values are near one another, found without comparing all with all.

Values fall into *bands* of keys such that near values share the key of some band: the pairs that share one are
candidates, and every candidate is verified. For texts the bands are groups of MinHash values (Broder 1997; banding as
in Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4), and near values share one with probability
above 0.999; for pictures they are parts of the perceptual hash, and by the pigeonhole principle near ones share one.
Where very many share a key, each is compared with those next to it alone.

Sorting the keys of a band takes the place of hash tables: at most 3.4 kB a text where datasketch.MinHashLSH takes 8.3 kB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    pass

PAIRS_PER_CHUNK = 1 << 16  # pairs verified at a time

Verify = Callable[[np.ndarray, np.ndarray], np.ndarray]


def near_pairs(bands: Sequence[np.ndarray], verify: Verify, window: int) -> np.ndarray:
    """The pairs that share a key in a band and are verified: ``(m, 2)`` int64, first number below second, sorted.

    Args:
        bands: for each band the keys ``(n,)`` uint64.
        verify: numbers ``(p,)`` and ``(p,)`` -> which pairs are near, ``(p,)`` bool.
        window: of many values with one key, each is compared with so many before it, so that time grows with n.
    """
    found = [np.empty((0, 2), dtype=np.int64)]
    for number, keys in enumerate(bands):
        for a, b in _pairs_with_equal_keys(keys, window):
            new = np.ones(len(a), dtype=bool)  # not seen in an earlier band
            for earlier in bands[:number]:
                new &= earlier[a] != earlier[b]
            a, b = a[new], b[new]
            for start in range(0, len(a), PAIRS_PER_CHUNK):
                i, j = a[start : start + PAIRS_PER_CHUNK], b[start : start + PAIRS_PER_CHUNK]
                good = verify(i, j)
                found.append(np.stack([i[good], j[good]], axis=1))
    pairs = np.unique(np.concatenate(found), axis=0)
    return pairs.reshape(-1, 2)


def _pairs_with_equal_keys(keys: np.ndarray, window: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    places = np.arange(len(order))
    for step in range(1, window + 1):
        places = places[places + step < len(order)]
        places = places[ordered[places] == ordered[places + step]]
        if not len(places):
            return
        yield order[places], order[places + step]


# -- texts


def _mixed(columns: Sequence[np.ndarray]) -> np.ndarray:
    keys = np.zeros(len(columns[0]), dtype=np.uint64)
    for column in columns:
        keys = (keys + column) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


# -- pictures
