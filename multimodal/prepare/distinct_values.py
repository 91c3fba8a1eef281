"""Numbers of the distinct values of a column, which replace the values after the first pass."""

from __future__ import annotations

from array import array
from hashlib import blake2b
from typing import Any

import numpy as np

from multimodal.prepare.cleaning import File, to_text
from multimodal.prepare.columns import Column
from multimodal.prepare.encoder_check import ValueCheck
from multimodal.prepare.near_pictures import NearPictures, fingerprint
from multimodal.prepare.near_texts import NearTexts, is_short

MISSING = -1


class DistinctValues:
    """Numbering of the distinct values of a column, in order of appearance; keeps a 16-byte hash (BLAKE2b) of each.

    Examples:
        >>> colours = DistinctValues()
        >>> [colours.number(value) for value in ("red", "blue", "red")]
        [0, 1, 0]
    """

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._rows = array("i")

    def __len__(self) -> int:
        """Return the number of distinct values."""
        return len(self._numbers)

    def number(self, value: Any) -> int:
        """Return the number of a value; a new value gets the next number."""
        return self._number_of_digest(_digest(to_text(value).encode()))

    def _number_of_digest(self, digest: bytes) -> int:
        return self._numbers.setdefault(digest, len(self._numbers))

    def append(self, number: int) -> None:
        """Append a row with the value of that number, or without a value (``MISSING``)."""
        self._rows.append(number)

    @property
    def rows(self) -> np.ndarray:
        """Number of each row's value, ``(n,)`` int32; -1 if the row has none."""
        return np.array(self._rows, dtype=np.int32)


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()


class ContentValues(DistinctValues):
    """Distinct values of a content column, with fingerprints from which near values are found.

    Texts are compared after cleaning, pictures by their pixels, sounds and other files by their bytes, and anything else by
    value.

    Args:
        column: the column.
        near: Jaccard similarity from which two texts are near. None: none are.
        near_bits: maximum number of different bits in the perceptual hashes of two near pictures. None: none are.
        check: called with every new value (files: their bytes) to find out whether it can be read; None: no check.

    Examples:
        >>> titles = ContentValues(Column("title", "text", "text"), near=0.8, near_bits=4)
        >>> for title in ("a red cup", "A red cup.", "a red cup", "two bowls"):
        ...     titles.append(titles.number(title))
        >>> titles.rows.tolist(), titles.neighbours()
        ([0, 1, 0, 2], {0: [1], 1: [0]})
    """

    def __init__(
        self, column: Column, near: float | None, near_bits: int | None, check: ValueCheck | None = None
    ) -> None:
        super().__init__()
        self.column = column
        self._check = check
        self._texts = NearTexts(near) if column.kind == "text" and near is not None else None
        self._pictures = NearPictures(near_bits) if column.kind == "image" and near_bits is not None else None
        self._short = array("B")  # of each value, whether it is a short text
        self._files: dict[bytes, int] = {}  # digest of a picture's file -> number of the picture

    def number(self, value: Any) -> int:
        """Return the number of a value; a new value is checked and gets the next number.

        Raises:
            Unreadable: the file is not an image, or the check cannot read the value.
        """
        if isinstance(value, File) and self.column.kind == "image":
            return self._number_of_picture(value)
        content: Any = value.data if isinstance(value, File) else value
        digest = _digest(content if isinstance(content, bytes) else to_text(content).encode())
        if digest not in self._numbers:
            self._check_value(content)
            if self.column.kind == "text" and isinstance(content, str):
                self._short.append(is_short(content) if self._texts is None else self._texts.add(content))
        return self._number_of_digest(digest)

    def _check_value(self, value: Any) -> None:
        if self._check is not None:
            self._check(value)

    def _number_of_picture(self, file: File) -> int:
        digest = _digest(file.data)
        if digest not in self._files:
            picture_fingerprint = fingerprint(file.data, look=self._pictures is not None)
            self._check_value(file.data)
            before = len(self)
            self._files[digest] = self._number_of_digest(picture_fingerprint.digest)
            if self._files[digest] == before and self._pictures is not None and picture_fingerprint.look is not None:
                self._pictures.add(picture_fingerprint.look)
        return self._files[digest]

    @property
    def may_be_label(self) -> np.ndarray:
        """Whether each value may be a label of a kind rather than an item, ``(values,)`` bool: all but files, long texts."""
        if self.column.kind == "text":
            return np.array(self._short, dtype=bool)
        return np.full(len(self), not self.column.is_file)

    def neighbours(self) -> dict[int, list[int]]:
        """Return value -> the values near it, by their numbers, ascending; values without neighbours have no entry."""
        index = self._texts or self._pictures
        near: dict[int, list[int]] = {}
        for a, b in index.pairs().tolist() if index is not None else ():
            near.setdefault(a, []).append(b)
            near.setdefault(b, []).append(a)
        return {number: sorted(others) for number, others in near.items()}

    def copies_of(self, others: ContentValues) -> np.ndarray:
        """Return which values are equal or near to one of other values, ``(values,)`` bool.

        Args:
            others: values of a column of the same kind.
        """
        copies = np.array([digest in others._numbers for digest in self._numbers], dtype=bool)
        if self._texts is not None and others._texts is not None and len(self) and len(others):
            copies |= self._texts.near_any(others._texts)
        if self._pictures is not None and others._pictures is not None and len(self) and len(others):
            copies |= self._pictures.near_any(others._pictures)
        return copies
