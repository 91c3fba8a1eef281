"""What stays of the rows after the first reading: numbers in place of values."""

from __future__ import annotations

from array import array
from hashlib import blake2b
from typing import Any

import numpy as np

from multimodal.prepare.cleaning import File, to_text
from multimodal.prepare.columns import Column
from multimodal.prepare.encoder_check import ValueCheck
from multimodal.prepare.near_pictures import NearPictures, fingerprint
from multimodal.prepare.near_texts import NearTexts

MISSING = -1


class DistinctValues:
    """Numbers the different values of a column as they come; of a value stay 16 bytes (BLAKE2b)."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._rows = array("i")

    def __len__(self) -> int:
        """How many different values there are."""
        return len(self._numbers)

    def number(self, value: Any) -> int:
        """The number of a value; a new one, the next, if it was not seen."""
        return self._of(_hash_model(to_text(value).encode()))

    def _of(self, digest: bytes) -> int:
        return self._numbers.setdefault(digest, len(self._numbers))

    def append(self, number: int) -> None:
        """Add a row with the value of that number, or without one (``MISSING``)."""
        self._rows.append(number)

    @property
    def rows(self) -> np.ndarray:
        """The number of each row's value, ``(n,)`` int32; -1 where it has none."""
        return np.array(self._rows, dtype=np.int32)


def _hash_model(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()


class ContentValues(DistinctValues):
    """The values of a content column: numbered, and fingerprinted to find near ones.

    Texts are equal when they are so cleaned, pictures by their pixels, sounds and other files by their bytes, and
    anything else by its value.

    Args:
        column: which one.
        near, near_bits: as in the settings.
        judge: what every new value is tried with; of files it gets the bytes.
    """

    def __init__(self, column: Column, near: float, near_bits: int, judge: ValueCheck | None = None) -> None:
        super().__init__()
        self.column = column
        self._judge = judge
        self._texts = NearTexts(near) if column.kind == "text" else None
        self._pictures = NearPictures(near_bits) if column.kind == "image" else None
        self._files: dict[bytes, int] = {}  # digest of a picture's file -> number of the picture

    def number(self, value: Any) -> int:
        """As for any column.

        Raises:
            Unreadable: the file is no picture, or the judge cannot read the value.
        """
        if isinstance(value, File) and self._pictures is not None:
            return self._number_of_picture(value, self._pictures)
        content: Any = value.data if isinstance(value, File) else value
        digest = _hash_model(content if isinstance(content, bytes) else to_text(content).encode())
        if digest not in self._numbers:
            self._try(content)
            if self._texts is not None and isinstance(content, str):
                self._texts.add(content)
        return self._of(digest)

    def _try(self, value: Any) -> None:
        if self._judge is not None:
            self._judge(value)

    def _number_of_picture(self, file: File, pictures: NearPictures) -> int:
        digest = _hash_model(file.data)
        if digest not in self._files:
            seen = fingerprint(file.data)
            self._try(file.data)
            before = len(self)
            self._files[digest] = self._of(seen.digest)
            if self._files[digest] == before:
                pictures.add(seen.phash, seen.colours)
        return self._files[digest]

    @property
    def labels(self) -> np.ndarray:
        """Which values may be labels that tell kinds, not things, ``(values,)`` bool: all but files and long texts."""
        return self._texts.short if self._texts is not None else np.full(len(self), not self.column.is_file)

    def neighbours(self) -> dict[int, list[int]]:
        """Number of a value -> the numbers of the values near it, ascending; without those that have none."""
        index = self._texts or self._pictures
        near: dict[int, list[int]] = {}
        for a, b in index.pairs().tolist() if index is not None else ():
            near.setdefault(a, []).append(b)
            near.setdefault(b, []).append(a)
        return {number: sorted(others) for number, others in near.items()}
