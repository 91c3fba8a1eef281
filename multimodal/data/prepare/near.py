"""Which of many values are near one another, found without comparing all with all.

Values fall into *bands* of keys such that near values share the key of some band: the pairs that share one are
candidates, and every candidate is verified. For texts the bands are groups of MinHash values (Broder 1997; banding as
in Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4), and near values share one with probability
above 0.999; for pictures they are parts of the perceptual hash, and by the pigeonhole principle near ones share one.
Where very many share a key, each is compared with those next to it alone.

Sorting the keys of a band takes the place of hash tables: at most 3.4 kB a text where datasketch.MinHashLSH takes 8.3 kB.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from multimodal.data.prepare.pictures import COLOURS

if TYPE_CHECKING:
    from scipy.sparse import csr_array

PERMUTATIONS = 128
SHINGLE = 5  # characters
SHORT = 50  # characters: of a shorter text a word is a large part of what it says
SKETCH = 256  # shingle hashes kept of a text: of a text with fewer, the similarity is exact
WINDOW = 500  # in a crowd of texts that share a key, each is compared with so many
PICTURE_WINDOW = 2000  # of pictures, whose bits are compared faster
CHUNK = 1 << 16  # pairs verified at a time
COLOURS_AT_ONCE = 256  # pairs of pictures whose colours are compared at a time, within a processor's cache
ENDS = " .,;:!?\"'“”‘’…。"
COLOUR_DISTANCE = 12.0  # mean difference of colour values in [0, 255]

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
        for a, b in _sharing(keys, window):
            new = np.ones(len(a), dtype=bool)  # not seen in an earlier band
            for earlier in bands[:number]:
                new &= earlier[a] != earlier[b]
            a, b = a[new], b[new]
            for start in range(0, len(a), CHUNK):
                i, j = a[start : start + CHUNK], b[start : start + CHUNK]
                good = verify(i, j)
                found.append(np.stack([i[good], j[good]], axis=1))
    pairs = np.unique(np.concatenate(found), axis=0)
    return pairs.reshape(-1, 2)


def _sharing(keys: np.ndarray, window: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
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


def folded(text: str) -> str:
    """The text without differences of case and of Unicode's compatibility forms, and without punctuation at its ends."""
    alike = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return alike.strip(ENDS) or alike


def numbers_in(text: str) -> int:
    """64 bits that tell the numbers in a folded text, in their order."""
    return int.from_bytes(blake2b(" ".join(re.findall(r"\d+", text)).encode(), digest_size=8).digest(), "big")


def words_of_short(text: str) -> int:
    """64 bits that tell the words of a short folded text, in any order; 0 of a longer one."""
    if len(text) >= SHORT:
        return 0
    words = " ".join(sorted(re.findall(r"\w+", text)))
    return int.from_bytes(blake2b(words.encode(), digest_size=8).digest(), "big") | 1


def shingles(text: str) -> np.ndarray:
    """The hashes (31 bits) of all runs of 5 characters of a text, ``(s,)`` uint32, ascending and different.

    A shorter text is one shingle.
    """
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    codes = np.pad(codes, (0, max(0, SHINGLE - len(codes))))
    count = len(codes) - SHINGLE + 1
    hashes = np.zeros(count, dtype=np.uint64)
    for place in range(SHINGLE):
        hashes = (hashes + codes[place : place + count]) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)
    return np.unique((hashes >> np.uint64(33)).astype(np.uint32))


class NearTexts:
    """Texts, numbered as they are added; of each stay 128 MinHash values and at most 256 shingle hashes.

    Two are near if the Jaccard similarity of their shingles is at least the threshold and they hold the same numbers:
    "item 12, front" and "item 13, front" are two things. Of texts below 50 characters the words have to be the same:
    so are "woman superhero" and "man superhero".
    """

    def __init__(self, threshold: float) -> None:
        from datasketch import MinHash

        self.threshold = threshold
        self._minhash = MinHash(PERMUTATIONS, seed=1, hashfunc=int)
        self._signatures = bytearray()
        self._sketches = bytearray()
        self._ends = array("q", [0])
        self._numbers = array("Q")
        self._words = array("Q")

    def add(self, text: str) -> None:
        text = folded(text)
        hashes = shingles(text)
        self._numbers.append(numbers_in(text))
        self._words.append(words_of_short(text))
        self._minhash.clear()
        for start in range(0, len(hashes), 4096):
            self._minhash.update_batch(hashes[start : start + 4096].tolist())
        self._signatures += self._minhash.digest().astype(np.uint32).tobytes()
        self._sketches += hashes[:SKETCH].tobytes()
        self._ends.append(len(self._sketches) // 4)

    @property
    def short(self) -> np.ndarray:
        """Which texts have less than 50 characters, ``(n,)`` bool."""
        return np.array(self._words, dtype=np.uint64) != 0

    def pairs(self) -> np.ndarray:
        """The near pairs, ``(m, 2)``."""
        signatures = np.frombuffer(self._signatures, dtype=np.uint32).reshape(-1, PERMUTATIONS)
        numbers = np.array(self._numbers, dtype=np.uint64)
        words = np.array(self._words, dtype=np.uint64)
        sets = self._sets()
        rows = rows_of_a_band(self.threshold)
        alike = [numbers, words]  # near texts have the same, so that others share no key
        bands = [
            _mixed([*alike, *signatures[:, start : start + rows].T])
            for start in range(0, PERMUTATIONS - rows + 1, rows)
        ]

        def verify(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            # five standard deviations of the estimate below the threshold
            slack = 5 * np.sqrt(self.threshold * (1 - self.threshold) / PERMUTATIONS) + 0.01
            near = (signatures[a] == signatures[b]).mean(axis=1) >= self.threshold - slack
            near &= (numbers[a] == numbers[b]) & (words[a] == words[b])
            near[near] = self._similarities(sets, a[near], b[near]) >= self.threshold
            return near

        return near_pairs(bands, verify, WINDOW)

    def _sets(self) -> csr_array:
        """The sketches as rows of a sparse matrix of ones; they are not copied."""
        from scipy.sparse import csr_array

        hashes = np.frombuffer(self._sketches, dtype=np.int32)
        ends = np.array(self._ends, dtype=np.int64)
        return csr_array((np.ones(len(hashes), dtype=np.int8), hashes, ends), shape=(len(ends) - 1, 2**31 - 1))

    def _similarities(self, sets: csr_array, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """``similarity`` of many pairs at a time."""
        found = np.zeros(len(a))
        sizes = np.diff(np.array(self._ends, dtype=np.int64))
        for start in range(0, len(a), 4096):
            i, j = a[start : start + 4096], b[start : start + 4096]
            both = np.asarray(sets[i].multiply(sets[j]).sum(axis=1)).reshape(-1)
            found[start : start + 4096] = both / (sizes[i] + sizes[j] - both)
        for place in np.flatnonzero(np.maximum(sizes[a], sizes[b]) >= SKETCH):
            found[place] = self.similarity(int(a[place]), int(b[place]))
        return found

    def similarity(self, a: int, b: int) -> float:
        """The Jaccard similarity of two texts' shingles, estimated by the smallest 256 hashes where they have more."""
        one, other = self._sketch(a), self._sketch(b)
        both = np.intersect1d(one, other, assume_unique=True)
        if max(len(one), len(other)) < SKETCH:
            return len(both) / (len(one) + len(other) - len(both))
        union = np.union1d(one, other)[:SKETCH]
        return float(np.searchsorted(both, union[-1], side="right")) / len(union)

    def _sketch(self, number: int) -> np.ndarray:
        start, end = self._ends[number], self._ends[number + 1]
        return np.frombuffer(self._sketches, dtype=np.uint32, count=end - start, offset=4 * start)


def rows_of_a_band(threshold: float) -> int:
    """How many MinHash values make a band: the most with which a pair at the threshold is missed once in 1,000 times."""
    sizes = range(1, PERMUTATIONS // 4)
    good = [r for r in sizes if (1 - threshold**r) ** (PERMUTATIONS // r) <= 0.001]
    return max(good, default=1)


def _mixed(columns: Sequence[np.ndarray]) -> np.ndarray:
    keys = np.zeros(len(columns[0]), dtype=np.uint64)
    for column in columns:
        keys = (keys + column) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


# -- pictures


class NearPictures:
    """Pictures, numbered as they are added; of each stay 64 bits and 768 colour values.

    Two are near if their perceptual hashes differ in at most ``bits`` bits, and their colours, seen at 16 x 16 pixels,
    by at most ``COLOUR_DISTANCE`` in the mean: the hash alone takes a red disc for a blue one.
    """

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self._hashes = array("Q")
        self._colours = bytearray()

    def add(self, phash: int, colours: np.ndarray) -> None:
        self._hashes.append(phash)
        self._colours += colours.tobytes()

    def pairs(self) -> np.ndarray:
        """The near pairs, ``(m, 2)``."""
        hashes = np.array(self._hashes, dtype=np.uint64)
        colours = np.frombuffer(self._colours, dtype=np.uint8).reshape(len(hashes), 3 * COLOURS**2)
        edges = np.linspace(0, 64, self.bits + 2).round().astype(int)
        bands = [
            (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
            for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        ]
        if self.bits == 0:
            bands = [hashes]

        def verify(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            near = np.bitwise_count(hashes[a] ^ hashes[b]) <= self.bits
            i, j = a[near], b[near]
            distances = np.zeros(len(i))
            for start in range(0, len(i), COLOURS_AT_ONCE):
                part = slice(start, start + COLOURS_AT_ONCE)
                one, other = colours[i[part]], colours[j[part]]
                distances[part] = (np.maximum(one, other) - np.minimum(one, other)).mean(axis=1)
            near[near] = distances <= COLOUR_DISTANCE
            return near

        return near_pairs(bands, verify, PICTURE_WINDOW)
