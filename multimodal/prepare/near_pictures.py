"""Pictures: opened in full, and what stays of them to compare them by."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from multimodal.media.image import _opened, _refusing, on_white

if TYPE_CHECKING:
    pass
from multimodal.prepare.near_pairs import near_pairs

PICTURE_WINDOW = 2000  # of pictures, whose bits are compared faster
PAIRS_PER_COLOUR_CHUNK = 256  # pairs of pictures whose colours are compared at a time, within a processor's cache
COLOUR_DISTANCE = 12.0  # mean difference of colour values in [0, 255]

COLOUR_GRID = 16  # edge of the small picture that colours are compared by
EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB")


@dataclass(frozen=True)
class Fingerprint:
    """What tells pictures apart.

    ``digest`` is equal for pictures of equal pixels, whatever file format holds them (of several frames: for equal
    files); ``phash`` are 64 bits; ``colours`` is ``(16, 16, 3)`` uint8.
    """

    digest: bytes
    phash: int
    colours: np.ndarray


def fingerprint(data: bytes) -> Fingerprint:
    """The fingerprint of a picture's file.

    Perceptual hash: ImageHash's ``phash`` (signs of the 64 lowest frequencies of the grey picture).

    Raises:
        Unreadable: as ``open_picture``.
    """
    import imagehash

    picture, frames = _opened(data)
    with _refusing(data):  # conversions fail over modes that decoders give
        seen = on_white(picture)
        digest = blake2b(_pixels(picture) if frames == 1 else data, digest_size=16).digest()
        bits = imagehash.phash(seen).hash.reshape(64)
        colours = np.asarray(seen.resize((COLOUR_GRID, COLOUR_GRID), Image.Resampling.BOX))
    return Fingerprint(digest, int.from_bytes(np.packbits(bits).tobytes(), "big"), colours)


def _pixels(picture: Image.Image) -> bytes:
    if picture.mode in EIGHT_BIT_MODES:
        picture = picture.convert("RGBA")
    return f"{picture.mode} {picture.size}".encode() + picture.tobytes()


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
        colours = np.frombuffer(self._colours, dtype=np.uint8).reshape(len(hashes), 3 * COLOUR_GRID**2)
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
            for start in range(0, len(i), PAIRS_PER_COLOUR_CHUNK):
                part = slice(start, start + PAIRS_PER_COLOUR_CHUNK)
                one, other = colours[i[part]], colours[j[part]]
                distances[part] = (np.maximum(one, other) - np.minimum(one, other)).mean(axis=1)
            near[near] = distances <= COLOUR_DISTANCE
            return near

        return near_pairs(bands, verify, PICTURE_WINDOW)
