"""Near duplicates among pictures: perceptual hashes and coarse colours."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from PIL import Image

from multimodal.media.image import conversion_errors, on_white, open_with_frames, strips
from multimodal.prepare.near_pairs import near_any, near_pairs

PICTURE_WINDOW = 2000  # larger than for texts, because bits are compared faster
PAIRS_PER_COLOUR_CHUNK = 256  # pairs whose colours are compared at a time, so that they fit the processor's cache
COLOUR_DISTANCE = 12.0  # mean difference of colour values in [0, 255]

COLOUR_GRID = 16  # pixels of an edge of the small picture whose colours are compared
EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB")


@dataclass(frozen=True)
class Fingerprint:
    """Fingerprint of a picture.

    Attributes:
        digest: 16 bytes, equal for pictures with equal pixels in any file format (with several frames: for equal files).
        look: what is compared to find near pictures; None: it was not asked for.
    """

    digest: bytes
    look: Look | None


class Look(NamedTuple):
    """What a picture looks like.

    Attributes:
        phash: 64-bit perceptual hash.
        colours: ``(16, 16, 3)`` uint8, the picture scaled to 16 x 16 pixels.
    """

    phash: int
    colours: np.ndarray


def fingerprint(data: bytes, look: bool = True) -> Fingerprint:
    """Compute the fingerprint of an image file.

    Args:
        data: the file.
        look: also compute what the picture looks like, which takes longer than the rest.

    Raises:
        Unreadable: the file is not an image, is damaged or too large, see ``open_picture``.
    """
    picture, frames = open_with_frames(data)
    with conversion_errors(data):  # conversions fail for some modes that decoders return
        digest = (_hash_pixels(picture) if frames == 1 else blake2b(data, digest_size=16)).digest()
        return Fingerprint(digest, _look_of(picture) if look else None)


def _look_of(picture: Image.Image) -> Look:
    """Compute colours, and ImageHash's ``phash``: which of 64 low frequencies of the grey picture exceed their median."""
    import imagehash

    flattened = on_white(picture)
    bits = imagehash.phash(flattened).hash.reshape(64)
    colours = np.asarray(flattened.resize((COLOUR_GRID, COLOUR_GRID), Image.Resampling.BOX))
    return Look(int.from_bytes(np.packbits(bits).tobytes(), "big"), colours)


def _hash_pixels(picture: Image.Image) -> blake2b:
    mode = "RGBA" if picture.mode in EIGHT_BIT_MODES else picture.mode
    digest = blake2b(f"{mode} {picture.size}".encode(), digest_size=16)
    for strip in strips(picture):
        digest.update(strip.convert(mode).tobytes())
    return digest


class _Arrays(NamedTuple):
    """What is compared of n pictures: perceptual hashes ``(n,)`` and colours ``(n, 768)``."""

    hashes: np.ndarray
    colours: np.ndarray


class NearPictures:
    """Search for near pairs among pictures, which are numbered in order; keeps 64 bits and 768 colour values of each.

    Two pictures are near if their perceptual hashes differ in at most ``bits`` bits and their colours at 16 x 16 pixels
    differ by at most ``COLOUR_DISTANCE`` on average. The hash alone does not distinguish a red disc from a blue one.

    Args:
        bits: maximum number of different bits, from 0 to 63.

    Examples:
        >>> grey = np.full((16, 16, 3), 128, dtype=np.uint8)
        >>> near = NearPictures(bits=4)
        >>> for phash in (0b0000, 0b1100, 2**64 - 1):
        ...     near.add(Look(phash, grey))
        >>> near.pairs().tolist()
        [[0, 1]]
    """

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self._hashes = array("Q")
        self._colours = bytearray()

    def add(self, look: Look) -> None:
        """Add a picture by what it looks like."""
        self._hashes.append(look.phash)
        self._colours += look.colours.tobytes()

    def pairs(self) -> np.ndarray:
        """Return the near pairs, ``(m, 2)`` int64, sorted."""
        arrays = self._arrays()
        return near_pairs(self._bands(arrays), lambda a, b: self._are_near(arrays, a, arrays, b), PICTURE_WINDOW)

    def near_any(self, others: NearPictures) -> np.ndarray:
        """Return which pictures are near one of other pictures, ``(n,)`` bool."""
        mine, theirs = self._arrays(), others._arrays()
        return near_any(
            self._bands(mine), self._bands(theirs), lambda a, b: self._are_near(mine, a, theirs, b), PICTURE_WINDOW
        )

    def _arrays(self) -> _Arrays:
        hashes = np.array(self._hashes, dtype=np.uint64)
        colours = np.frombuffer(self._colours, dtype=np.uint8).reshape(len(hashes), 3 * COLOUR_GRID**2)
        return _Arrays(hashes, colours)

    def _bands(self, arrays: _Arrays) -> list[np.ndarray]:
        if self.bits == 0:
            return [arrays.hashes]
        edges = np.linspace(0, 64, self.bits + 2).round().astype(int)
        return [
            (arrays.hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
            for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        ]

    def _are_near(self, mine: _Arrays, a: np.ndarray, theirs: _Arrays, b: np.ndarray) -> np.ndarray:
        near = np.bitwise_count(mine.hashes[a] ^ theirs.hashes[b]) <= self.bits
        i, j = a[near], b[near]
        distances = np.zeros(len(i))
        for start in range(0, len(i), PAIRS_PER_COLOUR_CHUNK):
            part = slice(start, start + PAIRS_PER_COLOUR_CHUNK)
            one, other = mine.colours[i[part]], theirs.colours[j[part]]
            distances[part] = (np.maximum(one, other) - np.minimum(one, other)).mean(axis=1)
        near[near] = distances <= COLOUR_DISTANCE
        return near
