"""Near duplicates among texts: MinHash of character shingles."""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from multimodal.prepare.near_pairs import near_any, near_pairs

if TYPE_CHECKING:
    from scipy.sparse import csr_array

PERMUTATIONS = 128
NOT_A_CHARACTER = 0x110000  # the first number after Unicode's, so that padding equals no text
SHINGLE = 5  # characters
MAX_CHARACTERS = 2**20  # compared of a text; its shingles take a hundred times as many bytes
SHORT_TEXT_CHARACTERS = 50  # in a shorter text, one word carries much of the meaning
SKETCH_SIZE = 256  # shingle hashes kept per text; the similarity of texts with fewer is exact
WINDOW = 500  # if many texts share a key, each is compared with this many
EDGE_PUNCTUATION = " .,;:!?\"'“”‘’…。"


def fold(text: str) -> str:
    """Normalise case and Unicode compatibility forms (NFKC) of a text and strip punctuation from its ends."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return folded.strip(EDGE_PUNCTUATION) or folded


def is_short(text: str) -> bool:
    """Whether a text has fewer than 50 characters, see ``fold``."""
    return len(fold(text[:MAX_CHARACTERS])) < SHORT_TEXT_CHARACTERS


def hash_numbers(text: str) -> int:
    """Hash the numbers in a folded text, in order, to 64 bits."""
    return int.from_bytes(blake2b(" ".join(re.findall(r"\d+", text)).encode(), digest_size=8).digest(), "big")


def hash_short_words(text: str) -> int:
    """Hash the words of a short folded text, in any order, to 64 bits that are not 0; return 0 for a longer text."""
    if len(text) >= SHORT_TEXT_CHARACTERS:
        return 0
    words = " ".join(sorted(re.findall(r"\w+", text)))
    return int.from_bytes(blake2b(words.encode(), digest_size=8).digest(), "big") | 1


def shingles(text: str) -> np.ndarray:
    """Return the distinct 31-bit hashes of all runs of 5 characters of a text, ``(s,)`` uint32, ascending.

    A shorter text is one shingle.
    """
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    codes = np.pad(codes, (0, max(0, SHINGLE - len(codes))), constant_values=NOT_A_CHARACTER)
    count = len(codes) - SHINGLE + 1
    hashes = np.zeros(count, dtype=np.uint64)
    for position in range(SHINGLE):
        hashes = (hashes + codes[position : position + count]) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)
    return np.unique((hashes >> np.uint64(33)).astype(np.uint32))


class _Arrays(NamedTuple):
    """What is compared of n texts: MinHash values, hashes of numbers and of short texts' words, sets of shingles."""

    signatures: np.ndarray
    numbers: np.ndarray
    words: np.ndarray
    sets: csr_array


class NearTexts:
    """Search for near pairs among texts, which are numbered in order; keeps 128 MinHash values and 256 shingle hashes of each.

    Two texts are near if the Jaccard similarity of their shingles is at least the threshold and they contain the same
    numbers: "item 12, front" and "item 13, front" are different items. Texts of fewer than 50 characters must also have the
    same words: "woman superhero" and "man superhero" are different.

    Args:
        threshold: Jaccard similarity, in (0, 1].

    Examples:
        >>> near = NearTexts(threshold=0.8)
        >>> for text in ("a red cup", "A red cup.", "two bowls"):
        ...     _ = near.add(text)
        >>> near.pairs().tolist()
        [[0, 1]]
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

    def add(self, text: str) -> bool:
        """Add a text, and return whether it is short; of a long one, the first 1,048,576 characters are compared."""
        text = fold(text[:MAX_CHARACTERS])
        hashes = shingles(text)
        self._numbers.append(hash_numbers(text))
        self._words.append(hash_short_words(text))
        self._minhash.clear()
        for start in range(0, len(hashes), 4096):
            self._minhash.update_batch(hashes[start : start + 4096].tolist())
        self._signatures += self._minhash.digest().astype(np.uint32).tobytes()
        self._sketches += hashes[:SKETCH_SIZE].tobytes()
        self._ends.append(len(self._sketches) // 4)
        return self._words[-1] != 0

    def pairs(self) -> np.ndarray:
        """Return the near pairs, ``(m, 2)`` int64, sorted."""
        arrays = self._arrays()
        return near_pairs(self._bands(arrays), lambda a, b: self._are_near(arrays, a, self, arrays, b), WINDOW)

    def near_any(self, others: NearTexts) -> np.ndarray:
        """Return which texts are near one of other texts, ``(n,)`` bool."""
        mine, theirs = self._arrays(), others._arrays()
        return near_any(
            self._bands(mine),
            others._bands(theirs),
            lambda a, b: self._are_near(mine, a, others, theirs, b),
            WINDOW,
        )

    def _arrays(self) -> _Arrays:
        return _Arrays(
            np.frombuffer(self._signatures, dtype=np.uint32).reshape(-1, PERMUTATIONS),
            np.array(self._numbers, dtype=np.uint64),
            np.array(self._words, dtype=np.uint64),
            self._sets(),
        )

    def _bands(self, arrays: _Arrays) -> list[np.ndarray]:
        rows = rows_per_band(self.threshold)
        equal_keys = [
            arrays.numbers,
            arrays.words,
        ]  # equal for near texts; as part of the key, they separate other texts
        return [
            _hash_columns([*equal_keys, *arrays.signatures[:, start : start + rows].T])
            for start in range(0, PERMUTATIONS - rows + 1, rows)
        ]

    def _are_near(self, mine: _Arrays, a: np.ndarray, others: NearTexts, theirs: _Arrays, b: np.ndarray) -> np.ndarray:
        # five standard deviations of the estimate below the threshold
        slack = 5 * np.sqrt(self.threshold * (1 - self.threshold) / PERMUTATIONS) + 0.01
        near = (mine.signatures[a] == theirs.signatures[b]).mean(axis=1) >= self.threshold - slack
        near &= (mine.numbers[a] == theirs.numbers[b]) & (mine.words[a] == theirs.words[b])
        near[near] = self._similarities(mine.sets, a[near], others, theirs.sets, b[near]) >= self.threshold
        return near

    def _sets(self) -> csr_array:
        """Return the sketches as rows of a sparse matrix of ones, without copying them."""
        from scipy.sparse import csr_array

        hashes = np.frombuffer(self._sketches, dtype=np.int32)
        ends = np.array(self._ends, dtype=np.int64)
        return csr_array((np.ones(len(hashes), dtype=np.int8), hashes, ends), shape=(len(ends) - 1, 2**31 - 1))

    def _similarities(
        self, sets: csr_array, a: np.ndarray, others: NearTexts, other_sets: csr_array, b: np.ndarray
    ) -> np.ndarray:
        """Return the ``similarity`` of many pairs of a text and another text, ``(m,)``."""
        similarities = np.zeros(len(a))
        sizes, other_sizes = (np.diff(np.array(texts._ends, dtype=np.int64)) for texts in (self, others))
        for start in range(0, len(a), 4096):
            i, j = a[start : start + 4096], b[start : start + 4096]
            intersections = np.asarray(sets[i].multiply(other_sets[j]).sum(axis=1)).reshape(-1)
            similarities[start : start + 4096] = intersections / (sizes[i] + other_sizes[j] - intersections)
        for position in np.flatnonzero(np.maximum(sizes[a], other_sizes[b]) >= SKETCH_SIZE):
            similarities[position] = _similarity(self._sketch(int(a[position])), others._sketch(int(b[position])))
        return similarities

    def similarity(self, a: int, b: int) -> float:
        """Return the Jaccard similarity of two texts' shingles, estimated from the smallest 256 hashes if there are more."""
        return _similarity(self._sketch(a), self._sketch(b))

    def _sketch(self, number: int) -> np.ndarray:
        start, end = self._ends[number], self._ends[number + 1]
        return np.frombuffer(self._sketches, dtype=np.uint32, count=end - start, offset=4 * start)


def _similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Return the Jaccard similarity of two sketches."""
    both = np.intersect1d(one, other, assume_unique=True)
    if max(len(one), len(other)) < SKETCH_SIZE:
        return len(both) / (len(one) + len(other) - len(both))
    union = np.union1d(one, other)[:SKETCH_SIZE]
    return float(np.searchsorted(both, union[-1], side="right")) / len(union)


def rows_per_band(threshold: float) -> int:
    """Return the largest number of MinHash values in a band with which at most 1 in 1,000 pairs at the threshold is missed."""
    sizes = range(1, PERMUTATIONS // 4)
    reliable = [r for r in sizes if (1 - threshold**r) ** (PERMUTATIONS // r) <= 0.001]
    return max(reliable, default=1)


def _hash_columns(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Hash the values of each row of equally long uint64 columns into one key, ``(n,)`` uint64."""
    keys = np.zeros(len(columns[0]), dtype=np.uint64)
    for column in columns:
        keys = (keys + column) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys
