"""Opening pictures, for the encoders of images and for ``prepare``: one size limit, one set of reasons for rejects."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError

from multimodal.core.errors import Unreadable, UsageError


def decode_image(value: Any, mode: Literal["L", "RGB"] | None = None, edge: int | None = None) -> Image.Image:
    """Decode a picture, without turning it upright.

    Args:
        value: a path, the bytes of an image file, a PIL image, or an array: uint8 ``(h, w)``, ``(h, w, 3)`` or
            ``(h, w, 4)``, uint16 or bool ``(h, w)``.
        mode: the mode that a JPEG is decoded for, see ``read_picture``. None: its own.
        edge: the longer edge that a JPEG is decoded for, see ``read_picture``. None: in full.

    Raises:
        Unreadable: the picture is a "missing file", "not an image", a "truncated picture" (or a damaged one), or a
            "decompression bomb": it has more than Pillow's ``Image.MAX_IMAGE_PIXELS`` (89 million pixels).
    """
    shown = describe_value(value)
    with image_errors("not an image", f"{shown} is not an image that can be read"):
        picture = _open_image(value)
    with image_errors("truncated picture", f"{shown} is not an image that can be read, it is cut off or damaged"):
        scale = 1 if edge is None else 2 * edge / max(picture.size)
        if scale < 1 and picture is not value:  # the caller's own picture is not changed
            picture.draft("L" if mode == "L" else None, (int(picture.width * scale), int(picture.height * scale)))
        picture.load()
    return picture


def describe_value(value: Any) -> str:
    """Describe a raw value for an error message."""
    if isinstance(value, str | Path):
        return str(value)
    return f"{len(value)} bytes" if isinstance(value, bytes) else f"a {type(value).__name__}"


@contextmanager
def image_errors(reason: str, message: str) -> Iterator[None]:
    """Turn errors of Pillow in the block into ``Unreadable``, with this reason unless the error shows a better one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # Pillow's own error needs twice as many
            yield
    except FileNotFoundError as error:
        raise Unreadable("missing file", f"the picture {error.filename} does not exist.") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise Unreadable("decompression bomb", f"{message} ({str(error).rstrip('.')}).") from error
    except UnidentifiedImageError as error:
        raise Unreadable("not an image", f"{message} (its format is unknown).") from error
    except Exception as error:  # a damaged file leads Pillow's plugins into all sorts
        if isinstance(error, OSError) and error.errno is None:  # Pillow's own: it knows the format
            reason = "truncated picture"
        raise Unreadable(reason, f"{message} ({error}).") from error


def _open_image(value: Any) -> Image.Image:
    """A picture, perhaps not decoded yet."""
    if isinstance(value, np.ndarray):
        colours = value.ndim == 3 and value.shape[2] in (3, 4) and value.dtype == np.uint8
        grey = value.ndim == 2 and value.dtype in (np.uint8, np.uint16, np.bool_)
        if not (colours or grey):
            raise ValueError(f"shape {value.shape}, type {value.dtype}; give (h, w), (h, w, 3) or (h, w, 4) of uint8")
        value = Image.fromarray(value)
    elif isinstance(value, bytes):
        value = Image.open(io.BytesIO(value))
    elif isinstance(value, str | Path):
        value = Image.open(value)
    elif not isinstance(value, Image.Image):
        raise ValueError("give a path, bytes, a PIL image or an array")
    if not value.width * value.height:
        raise ValueError("it has no pixels")
    if value.mode == "F":
        raise ValueError("the range of floating-point pixels is not known")
    return value


def open_picture(data: bytes) -> Image.Image:
    """Open the picture of a file (the first of several), decoded in full and turned upright (EXIF).

    Raises:
        Unreadable: as ``multimodal.media.image.decode_image``.
    """
    return _opened(data)[0]


def _opened(data: bytes) -> tuple[Image.Image, int]:
    """The picture, and how many the file holds."""
    picture = decode_image(data)
    with _refusing(data):
        return ImageOps.exif_transpose(picture), getattr(picture, "n_frames", 1)


def _refusing(data: bytes) -> AbstractContextManager[None]:
    return image_errors("not an image", f"{describe_value(data)} is not an image that can be read")


def on_white(picture: Image.Image) -> Image.Image:
    """Convert a picture to RGB on a white ground, as a page shows it."""
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


def read_picture(value: Any, mode: Literal["L", "RGB"], edge: int | None, background: str) -> Image.Image:
    """Read a picture upright, with transparent parts on a ground of one colour.

    Args:
        value: a path, the bytes of an image file, a PIL image, or an array: uint8 ``(h, w)``, ``(h, w, 3)`` or
            ``(h, w, 4)``, uint16 or bool ``(h, w)``.
        mode: of the picture that comes back.
        edge: what the picture's longer edge will be resized to, in pixels. A JPEG is decoded at a half, quarter or
            eighth of its size where that still has twice the edge, which is several times faster. None: it is decoded
            in full, to the pixels that every other program reads.
        background: colour of the ground.

    Raises:
        Unreadable: as ``multimodal.media.image.decode_image``.
    """
    picture = decode_image(value, mode, edge)
    with image_errors("not an image", f"{describe_value(value)} is not an image that can be read"):
        return _flatten_on(_to_eight_bits(ImageOps.exif_transpose(picture)), background).convert(mode)


def check_background(encoder: str, background: str) -> None:
    """Raise a ``UsageError`` if a setting of an encoder is not an opaque colour."""
    try:
        opaque = len(ImageColor.getrgb(background)) == 3
    except ValueError:
        opaque = False
    if not opaque:
        raise UsageError(f"{encoder}: background {background!r} is not an opaque colour; name one, or write #rrggbb.")


def _to_eight_bits(picture: Image.Image) -> Image.Image:
    if not picture.mode.startswith("I"):
        return picture
    pixels = np.asarray(picture).clip(0, 65535)  # of 16 bits; Pillow's own conversion would cut at 255
    grey = Image.fromarray((pixels // 257).astype(np.uint8))
    if "transparency" in picture.info:  # a PNG may name the one grey that is clear
        grey.putalpha(Image.fromarray(np.where(pixels == picture.info["transparency"], 0, 255).astype(np.uint8)))
    return grey


def _flatten_on(picture: Image.Image, background: str) -> Image.Image:
    if not picture.has_transparency_data:
        return picture
    if picture.mode == "La":  # premultiplied; Pillow converts it to nothing else
        picture = picture.convert("LA")
    ground = Image.new("RGBA", picture.size, background)
    ground.alpha_composite(picture.convert("RGBA"))
    return ground.convert("RGB")


def picture_file(value: Any) -> bytes:
    """A PNG file of a picture.

    Args:
        value: as in ``decode_image``.

    Raises:
        Unreadable: as ``decode_image``.
    """
    buffer = io.BytesIO()
    on_white(decode_image(value)).save(buffer, "PNG")
    return buffer.getvalue()
