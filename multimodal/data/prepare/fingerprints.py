"""What stays of the rows after the first reading: numbers in place of values."""

from __future__ import annotations

from array import array
from hashlib import blake2b
from typing import Any

import numpy as np

from multimodal.data.prepare.cleaning import File, plain
from multimodal.data.prepare.kinds import Column
from multimodal.data.prepare.near import NearPictures, NearTexts
from multimodal.data.prepare.pictures import check_audio, fingerprint

MISSING = -1


class Numbered:
    """Numbers the different values of a column as they come; of a value stay 16 bytes (BLAKE2b)."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._rows = array("i")

    def __len__(self) -> int:
        """How many different values there are."""
        return len(self._numbers)

    def number(self, value: Any) -> int:
        """The number of a value; a new one, the next, if it was not seen."""
        return self._of(blake2b(plain(value).encode(), digest_size=16).digest())

    def _of(self, digest: bytes) -> int:
        return self._numbers.setdefault(digest, len(self._numbers))

    def append(self, number: int) -> None:
        """Add a row with the value of that number, or without one (``MISSING``)."""
        self._rows.append(number)

    @property
    def rows(self) -> np.ndarray:
        """The number of each row's value, ``(n,)`` int32; -1 where it has none."""
        return np.array(self._rows, dtype=np.int32)


class Content(Numbered):
    """The values of a content column: numbered, and fingerprinted to find near ones.

    Texts are equal when they are so cleaned, pictures by their pixels, sounds and other files by their bytes, and
    anything else by its value.
    """

    def __init__(self, column: Column, near: float, near_bits: int) -> None:
        super().__init__()
        self.column = column
        self._texts = NearTexts(near) if column.kind == "text" else None
        self._pictures = NearPictures(near_bits) if column.kind == "image" else None
        self._files: dict[bytes, int] = {}  # digest of a picture's file -> number of the picture

    def number(self, value: Any) -> int:
        """As for any column.

        Raises:
            Unreadable: the file is no picture or sound.
        """
        if isinstance(value, File):
            return self._number_of_file(value)
        before = len(self)
        number = super().number(value)
        if self._texts is not None and number == before:
            self._texts.add(value)
        return number

    def _number_of_file(self, file: File) -> int:
        digest = blake2b(file.data, digest_size=16).digest()
        if self._pictures is None:
            if self.column.kind == "audio" and digest not in self._numbers:
                check_audio(file.data)
            return self._of(digest)
        if digest not in self._files:
            seen = fingerprint(file.data)
            before = len(self)
            self._files[digest] = self._of(seen.digest)
            if self._files[digest] == before:
                self._pictures.add(seen.phash, seen.colours)
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
