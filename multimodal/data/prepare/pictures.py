"""Pictures: opened in full, and what stays of them to compare them by."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from PIL import Image, ImageOps

from multimodal.core.pictures import decoded, in_words, refusing

COLOURS = 16  # edge of the small picture that colours are compared by
EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB")


@dataclass(frozen=True)
class Fingerprint:
    """What tells pictures apart.

    ``digest`` is equal for pictures of equal pixels, whatever file format holds them (of several frames: for equal
    files); ``phash`` are 64 bits; ``colours`` is ``(16, 16, 3)`` uint8.
    """

    digest: bytes
    phash: int
    colours: np.ndarray


def open_picture(data: bytes) -> Image.Image:
    """The picture of a file (of several the first), decoded in full and turned upright (EXIF).

    Raises:
        Unreadable: as ``multimodal.core.pictures.decoded``.
    """
    return _opened(data)[0]


def _opened(data: bytes) -> tuple[Image.Image, int]:
    """The picture, and how many the file holds."""
    picture = decoded(data)
    with _refusing(data):
        return ImageOps.exif_transpose(picture), getattr(picture, "n_frames", 1)


def _refusing(data: bytes) -> AbstractContextManager[None]:
    return refusing("no picture", f"{in_words(data)} is no picture that can be read")


def on_white(picture: Image.Image) -> Image.Image:
    """The picture as people see it on a page: RGB, on a white ground."""
    if picture.mode.startswith("I"):  # Pillow's own conversion would cut at 255
        pixels = np.asarray(picture).astype(np.float64)
        low, high = pixels.min(), pixels.max()
        scaled = (pixels - low) / (high - low) * 255 if high > low else np.zeros_like(pixels)
        picture = Image.fromarray(scaled.astype(np.uint8))
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    ground = Image.new("RGBA", picture.size, "white")
    ground.alpha_composite(picture.convert("RGBA"))
    return ground.convert("RGB")


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
        colours = np.asarray(seen.resize((COLOURS, COLOURS), Image.Resampling.BOX))
    return Fingerprint(digest, int.from_bytes(np.packbits(bits).tobytes(), "big"), colours)


def _pixels(picture: Image.Image) -> bytes:
    if picture.mode in EIGHT_BITS:
        picture = picture.convert("RGBA")
    return f"{picture.mode} {picture.size}".encode() + picture.tobytes()
