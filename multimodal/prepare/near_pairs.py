"""Search for near pairs among many values without comparing all pairs.

Each value has one key in each of several *bands*, and near values share the key of at least one band. Pairs that share a key
are candidates, and every candidate is verified. For texts, the bands are groups of MinHash values (Broder 1997; banding as
in Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4), and near values share one with probability
above 0.999. For pictures, the bands are pieces of the perceptual hash, and by the pigeonhole principle near values share
one. If very many values share a key, each is compared only with the next ones in order.

Sorted keys replace hash tables: at most 3.4 kB per text, compared with 8.3 kB for datasketch.MinHashLSH.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

PAIRS_PER_CHUNK = 1 << 16  # pairs verified at a time

Verify = Callable[[np.ndarray, np.ndarray], np.ndarray]


def near_pairs(bands: Sequence[np.ndarray], verify: Verify, window: int) -> np.ndarray:
    """Find the pairs that share a key in some band and pass verification.

    Args:
        bands: for each band, the keys ``(n,)`` uint64.
        verify: function of the numbers ``(p,)`` and ``(p,)`` of pairs that returns which are near, ``(p,)`` bool.
        window: maximum number of preceding values with the same key with which a value is compared; keeps the time linear
            in n.

    Returns:
        ``(m, 2)`` int64 distinct pairs, the smaller number first, sorted.
    """
    found = [np.empty((0, 2), dtype=np.int64)]
    for number, keys in enumerate(bands):
        for a, b in _pairs_with_equal_keys(keys, window):
            new = np.ones(len(a), dtype=bool)  # no key in common in an earlier band
            for earlier in bands[:number]:
                new &= earlier[a] != earlier[b]
            a, b = a[new], b[new]
            for start in range(0, len(a), PAIRS_PER_CHUNK):
                i, j = a[start : start + PAIRS_PER_CHUNK], b[start : start + PAIRS_PER_CHUNK]
                verified = verify(i, j)
                found.append(np.stack([i[verified], j[verified]], axis=1))
    pairs = np.unique(np.concatenate(found), axis=0)
    return pairs.reshape(-1, 2)


def near_any(bands: Sequence[np.ndarray], others: Sequence[np.ndarray], verify: Verify, window: int) -> np.ndarray:
    """Find the values that are near one of another set of values.

    Args:
        bands: for each band, the keys ``(n,)`` uint64 of the values.
        others: for each band, the keys ``(m,)`` uint64 of the other values.
        verify: function of numbers of values ``(p,)`` and of other values ``(p,)`` that returns which are near, ``(p,)`` bool.
        window: maximum number of other values with the same key with which a value is compared in a band.

    Returns:
        ``(n,)`` bool.

    Examples:
        >>> keys, others = np.array([5, 6, 7], dtype=np.uint64), np.array([7, 5], dtype=np.uint64)
        >>> near_any([keys], [others], lambda a, b: np.ones(len(a), dtype=bool), window=10).tolist()
        [True, False, True]
    """
    near = np.zeros(len(bands[0]), dtype=bool)
    for keys, other_keys in zip(bands, others, strict=True):
        order = np.argsort(other_keys, kind="stable")
        ordered = other_keys[order]
        first, end = (np.searchsorted(ordered, keys, side=side) for side in ("left", "right"))
        for step in range(min(window, int((end - first).max(initial=0)))):
            open_values = np.flatnonzero(~near & (first + step < end))
            for start in range(0, len(open_values), PAIRS_PER_CHUNK):
                part = open_values[start : start + PAIRS_PER_CHUNK]
                near[part] = verify(part, order[first[part] + step])
    return near


def _pairs_with_equal_keys(keys: np.ndarray, window: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the pairs with equal keys at a distance of 1, 2, ..., window in sorted order; the smaller number first."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    positions = np.arange(len(order))
    for step in range(1, window + 1):
        positions = positions[positions + step < len(order)]
        positions = positions[ordered[positions] == ordered[positions + step]]
        if not len(positions):
            return
        yield order[positions], order[positions + step]
