"""Near duplicates among texts: MinHash of shingles."""

from __future__ import annotations

import re
import unicodedata
from array import array
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array
from multimodal.prepare.near_pairs import _mixed, near_pairs

PERMUTATIONS = 128
SHINGLE = 5  # characters
SHORT_TEXT_CHARACTERS = 50  # characters: of a shorter text a word is a large part of what it says
SKETCH_SIZE = 256  # shingle hashes kept of a text: of a text with fewer, the similarity is exact
WINDOW = 500  # in a crowd of texts that share a key, each is compared with so many
EDGE_PUNCTUATION = " .,;:!?\"'“”‘’…。"


def fold(text: str) -> str:
    """The text without differences of case and of Unicode's compatibility forms, and without punctuation at its ends."""
    alike = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return alike.strip(EDGE_PUNCTUATION) or alike


def hash_numbers(text: str) -> int:
    """64 bits that tell the numbers in a folded text, in their order."""
    return int.from_bytes(blake2b(" ".join(re.findall(r"\d+", text)).encode(), digest_size=8).digest(), "big")


def hash_short_words(text: str) -> int:
    """64 bits that tell the words of a short folded text, in any order; 0 of a longer one."""
    if len(text) >= SHORT_TEXT_CHARACTERS:
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
        text = fold(text)
        hashes = shingles(text)
        self._numbers.append(hash_numbers(text))
        self._words.append(hash_short_words(text))
        self._minhash.clear()
        for start in range(0, len(hashes), 4096):
            self._minhash.update_batch(hashes[start : start + 4096].tolist())
        self._signatures += self._minhash.digest().astype(np.uint32).tobytes()
        self._sketches += hashes[:SKETCH_SIZE].tobytes()
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
        rows = rows_per_band(self.threshold)
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
        for place in np.flatnonzero(np.maximum(sizes[a], sizes[b]) >= SKETCH_SIZE):
            found[place] = self.similarity(int(a[place]), int(b[place]))
        return found

    def similarity(self, a: int, b: int) -> float:
        """The Jaccard similarity of two texts' shingles, estimated by the smallest 256 hashes where they have more."""
        one, other = self._sketch(a), self._sketch(b)
        both = np.intersect1d(one, other, assume_unique=True)
        if max(len(one), len(other)) < SKETCH_SIZE:
            return len(both) / (len(one) + len(other) - len(both))
        union = np.union1d(one, other)[:SKETCH_SIZE]
        return float(np.searchsorted(both, union[-1], side="right")) / len(union)

    def _sketch(self, number: int) -> np.ndarray:
        start, end = self._ends[number], self._ends[number + 1]
        return np.frombuffer(self._sketches, dtype=np.uint32, count=end - start, offset=4 * start)


def rows_per_band(threshold: float) -> int:
    """How many MinHash values make a band: the most with which a pair at the threshold is missed once in 1,000 times."""
    sizes = range(1, PERMUTATIONS // 4)
    good = [r for r in sizes if (1 - threshold**r) ** (PERMUTATIONS // r) <= 0.001]
    return max(good, default=1)
