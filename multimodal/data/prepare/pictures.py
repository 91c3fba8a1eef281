"""Pictures: opened in full, and what stays of them to compare them by."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from PIL import Image, ImageOps

from multimodal.core.errors import Unreadable

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
        Unreadable: it is no picture, cut short, or larger than Pillow's limit against decompression bombs.
    """
    return _opened(data)[0]


def _opened(data: bytes) -> tuple[Image.Image, int]:
    """The picture, and how many the file holds."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data))
            picture.load()
            frames = getattr(picture, "n_frames", 1)
            upright = ImageOps.exif_transpose(picture)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise Unreadable(
            "picture too large", f"the picture has more than {Image.MAX_IMAGE_PIXELS:,} pixels."
        ) from error
    except Exception as error:  # whatever a decoder raises over broken bytes
        raise Unreadable("broken picture", f"no picture that can be opened ({_told(error)}).") from error
    if not upright.width * upright.height:
        raise Unreadable("broken picture", "the picture has no pixels.")
    return upright, frames


def _told(error: Exception) -> str:
    """The error without the address in memory that Pillow names an unknown file by."""
    text = str(error).partition(" <_io.BytesIO")[0]
    return text or type(error).__name__


def on_white(picture: Image.Image) -> Image.Image:
    """The picture as people see it on a page: RGB, on a white ground."""
    if picture.mode == "F" or picture.mode.startswith("I"):  # Pillow's own conversion would cut at 255
        pixels = np.asarray(picture).astype(np.float64)
        low, high = pixels.min(), pixels.max()
        scaled = (pixels - low) / (high - low) * 255 if high > low else np.zeros_like(pixels)
        picture = Image.fromarray(np.nan_to_num(scaled).astype(np.uint8))
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
    try:
        seen = on_white(picture)
        digest = blake2b(_pixels(picture) if frames == 1 else data, digest_size=16).digest()
        bits = imagehash.phash(seen).hash.reshape(64)
        colours = np.asarray(seen.resize((COLOURS, COLOURS), Image.Resampling.BOX))
    except Exception as error:  # conversions fail over modes that decoders give
        raise Unreadable("broken picture", f"no picture that can be converted ({_told(error)}).") from error
    return Fingerprint(digest, int.from_bytes(np.packbits(bits).tobytes(), "big"), colours)


def _pixels(picture: Image.Image) -> bytes:
    if picture.mode in EIGHT_BITS:
        picture = picture.convert("RGBA")
    return f"{picture.mode} {picture.size}".encode() + picture.tobytes()
