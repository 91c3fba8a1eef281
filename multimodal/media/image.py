"""Opening pictures, for the encoders of images and for ``prepare``, with one size limit and one set of reject reasons."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image, ImageColor, ImageOps, UnidentifiedImageError

from multimodal.core.errors import Unreadable, UsageError
from multimodal.core.files import not_a_file

STRIP_PIXELS = 2**22  # converted at a time: copies of the largest pictures in 4 to 8 bytes a pixel would take gigabytes


def decode_image(value: Any, mode: Literal["L", "RGB"] | None = None, edge: int | None = None) -> Image.Image:
    """Decode a picture, without turning it upright.

    Args:
        value: a path, the bytes of an image file, a PIL image, or an array or tensor: uint8 ``(h, w)``, ``(h, w, 3)`` or
            ``(h, w, 4)``, uint16 or bool ``(h, w)``.
        mode: the mode that a JPEG is decoded for, see ``read_picture``. None: its own.
        edge: the longer edge that a JPEG is decoded for, see ``read_picture``. None: its full size.

    Raises:
        Unreadable: with the reason "missing file", "not an image", "truncated picture" (also for other damage), or
            "decompression bomb" (more than Pillow's ``Image.MAX_IMAGE_PIXELS``, 89 million pixels).
    """
    description = describe_value(value)
    with image_errors("not an image", f"{description} is not an image that can be read"):
        picture = _open_image(value)
    with image_errors("truncated picture", f"{description} is not an image that can be read, it is cut off or damaged"):
        scale = 1 if edge is None else 2 * edge / max(picture.size)
        if scale < 1 and picture is not value:  # do not change the caller's picture
            size = (max(1, int(picture.width * scale)), max(1, int(picture.height * scale)))  # Pillow divides by both
            picture.draft("L" if mode == "L" else None, size)
        picture.load()
    return picture


def is_picture(given: Any) -> bool:
    """Whether an array or tensor is one picture: it has 2 or 3 dimensions. With 4, it is several. Lists are several."""
    return getattr(given, "ndim", 0) in (2, 3)


def describe_value(value: Any) -> str:
    """Describe a raw value for an error message."""
    if isinstance(value, str | Path):
        return str(value)
    return f"{len(value)} bytes" if isinstance(value, bytes) else f"a {type(value).__name__}"


@contextmanager
def image_errors(reason: str, message: str) -> Iterator[None]:
    """Turn errors of Pillow in the block into ``Unreadable``.

    Args:
        reason: the reason, unless the error shows a more precise one.
        message: the beginning of the message, without a full stop.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata
            warnings.simplefilter(
                "error", Image.DecompressionBombWarning
            )  # Pillow raises an error only from twice as many pixels
            yield
    except (FileNotFoundError, IsADirectoryError) as error:
        raise not_a_file(error.filename, "the picture") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise Unreadable("decompression bomb", f"{message} ({str(error).rstrip('.')}).") from error
    except UnidentifiedImageError as error:
        raise Unreadable("not an image", f"{message} (its format is unknown).") from error
    except Exception as error:  # for damaged files, Pillow's plugins raise errors of all kinds
        if isinstance(error, OSError) and error.errno is None:  # raised by Pillow, which has recognised the format
            reason = "truncated picture"
        raise Unreadable(reason, f"{message} ({error}).") from error


def _open_image(value: Any) -> Image.Image:
    """Return a picture that may not be decoded yet."""
    if hasattr(value, "__array__"):  # also a tensor
        value = np.asarray(value)
        colours = value.ndim == 3 and value.shape[2] in (3, 4) and value.dtype == np.uint8
        grey = value.ndim == 2 and value.dtype in (np.uint8, np.uint16, np.bool_)
        if not (colours or grey):
            raise ValueError(
                f"shape {value.shape}, type {value.dtype}; give (h, w), (h, w, 3) or (h, w, 4) of uint8, channels last"
            )
        value = Image.fromarray(value)
    elif isinstance(value, bytes):
        value = Image.open(io.BytesIO(value))
    elif isinstance(value, str | Path):
        value = Image.open(value)
    elif not isinstance(value, Image.Image):
        raise ValueError("give a path, bytes, a PIL image or an array")
    if not value.width * value.height:
        raise ValueError("it has no pixels")
    # of both modes the range is unknown; Pillow reads 16-bit PGM, and in some versions PNG, as I of that range
    if value.mode == "F" or (value.mode == "I" and value.format not in ("PPM", "PNG")):
        pixels = "floating-point" if value.mode == "F" else "32-bit"
        raise ValueError(f"the range of {pixels} pixels is unknown; give uint8 or uint16")
    return value


def open_picture(data: bytes) -> Image.Image:
    """Decode the picture of a file (the first of several) in full and turn it upright (EXIF).

    Args:
        data: the bytes of the file.

    Raises:
        Unreadable: see ``decode_image``.
    """
    return open_with_frames(data)[0]


def open_with_frames(data: bytes) -> tuple[Image.Image, int]:
    """Return the picture of a file as ``open_picture`` does, and the number of pictures in the file."""
    picture = decode_image(data)
    with conversion_errors(data):
        return _upright(picture), getattr(picture, "n_frames", 1)


def conversion_errors(data: bytes) -> AbstractContextManager[None]:
    """Turn errors of Pillow in the block into ``Unreadable`` for the bytes of a file."""
    return image_errors("not an image", f"{describe_value(data)} is not an image that can be read")


def on_white(picture: Image.Image) -> Image.Image:
    """Convert a picture to RGB on a white background, as an HTML page shows it; 16-bit pictures use the full range."""
    if picture.mode.startswith("I"):  # Pillow's conversion would clip at 255
        extremes = [(pixels.min(), pixels.max()) for pixels in map(np.asarray, strips(picture))]
        low, high = float(min(a for a, _ in extremes)), float(max(b for _, b in extremes))
        scale = 255 / (high - low) if high > low else 0.0
        picture = _in_strips(
            picture, "L", lambda strip: Image.fromarray(((np.asarray(strip) - low) * scale).astype(np.uint8))
        )
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    return _in_strips(picture, "RGB", lambda strip: _flatten(strip, "white"))


def strips(picture: Image.Image) -> Iterator[Image.Image]:
    """Yield a picture in strips of full width and about 4 million pixels, from top to bottom; a smaller one whole."""
    rows = max(STRIP_PIXELS // picture.width, 1)
    if rows >= picture.height:
        yield picture
        return
    for top in range(0, picture.height, rows):
        yield picture.crop((0, top, picture.width, min(top + rows, picture.height)))


def _in_strips(picture: Image.Image, mode: str, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Return a picture of a mode, converted in strips."""
    if picture.width * picture.height <= STRIP_PIXELS:
        return convert(picture)
    converted, top = Image.new(mode, picture.size), 0
    for strip in strips(picture):
        converted.paste(convert(strip), (0, top))
        top += strip.height
    return converted


def _upright(picture: Image.Image) -> Image.Image:
    """Return a picture turned as its EXIF data say; the same one, not a copy, if it is upright."""
    return picture if picture.getexif().get(ExifTags.Base.Orientation, 1) == 1 else ImageOps.exif_transpose(picture)


def read_picture(value: Any, mode: Literal["L", "RGB"], edge: int | None, background: str) -> Image.Image:
    """Read a picture upright, with transparent parts filled with a background colour.

    Args:
        value: a path, the bytes of an image file, a PIL image, or an array or tensor: uint8 ``(h, w)``, ``(h, w, 3)`` or
            ``(h, w, 4)``, uint16 or bool ``(h, w)``.
        mode: the mode of the result, grey or colour.
        edge: the length in pixels that the picture's longer edge will be resized to. A JPEG is decoded at a half, quarter
            or eighth of its size if that is still twice the edge, which is several times faster. None: it is decoded
            at its full size, to the same pixels as in other programs.
        background: the background colour, by name or as #rrggbb.

    Raises:
        Unreadable: see ``decode_image``.
    """
    picture = decode_image(value, mode, edge)
    with image_errors("not an image", f"{describe_value(value)} is not an image that can be read"):
        read = _flatten_on(_to_eight_bits(_upright(picture)), background)
        return read if read.mode == mode and read is not value else read.convert(mode)


def check_background(encoder: str, background: str) -> None:
    """Raise a ``UsageError`` if an encoder's setting ``background`` is not an opaque colour."""
    try:
        opaque = len(ImageColor.getrgb(background)) == 3
    except ValueError:
        opaque = False
    if not opaque:
        raise UsageError(f"{encoder}: background {background!r} is not an opaque colour; name one, or write #rrggbb.")


def _to_eight_bits(picture: Image.Image) -> Image.Image:
    if not picture.mode.startswith("I"):
        return picture
    transparent = picture.info.get("transparency")  # a PNG may declare one grey as transparent

    def convert(strip: Image.Image) -> Image.Image:
        pixels = np.asarray(strip).clip(0, 65535)  # 16 bits; Pillow's conversion would clip at 255
        grey = Image.fromarray((pixels // 257).astype(np.uint8))
        if transparent is not None:
            grey.putalpha(Image.fromarray(np.where(pixels == transparent, 0, 255).astype(np.uint8)))
        return grey

    return _in_strips(picture, "L" if transparent is None else "LA", convert)


def _flatten_on(picture: Image.Image, background: str) -> Image.Image:
    if not picture.has_transparency_data:
        return picture
    return _in_strips(picture, "RGB", lambda strip: _flatten(strip, background))


def _flatten(picture: Image.Image, background: str) -> Image.Image:
    """Lay a picture with transparent parts on a background colour, in RGB."""
    if picture.mode == "La":  # premultiplied; Pillow converts it only to LA
        picture = picture.convert("LA")
    flattened = Image.new("RGBA", picture.size, background)
    flattened.alpha_composite(picture.convert("RGBA"))
    return flattened.convert("RGB")


def picture_file(value: Any) -> bytes:
    """Encode a picture as a PNG file, in RGB on a white background.

    Args:
        value: a picture in any form that ``decode_image`` reads.

    Raises:
        Unreadable: see ``decode_image``.
    """
    return png_file(on_white(decode_image(value)))


def png_file(picture: Image.Image, optimize: bool = False) -> bytes:
    """Return a picture as the bytes of a PNG file; ``optimize`` makes it smaller and takes longer."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=optimize)
    return buffer.getvalue()


def png_url(picture: Image.Image, optimize: bool = False) -> str:
    """Return a picture as a ``data:`` URL of a PNG file, for an HTML page."""
    return "data:image/png;base64," + base64.b64encode(png_file(picture, optimize)).decode()
