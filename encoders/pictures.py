"""Reading pictures: whatever Pillow opens becomes an upright picture of eight bits on an opaque ground."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from PIL import Image, ImageColor, ImageOps

from multimodal.core.errors import UsageError
from multimodal.core.pictures import decoded, in_words, refusing


def read_picture(value: Any, mode: Literal["L", "RGB"], edge: int | None, background: str) -> Image.Image:
    """The upright picture, what is transparent laid on a ground.

    Args:
        value: a path, the bytes of an image file, a PIL image, or an array: uint8 ``(h, w)``, ``(h, w, 3)`` or
            ``(h, w, 4)``, uint16 or bool ``(h, w)``.
        mode: of the picture that comes back.
        edge: what the picture's longer edge will be resized to, in pixels. A JPEG is decoded at a half, quarter or
            eighth of its size where that still has twice the edge, which is several times faster. None: it is decoded
            in full, to the pixels that every other program reads.
        background: colour of the ground.

    Raises:
        Unreadable: as ``multimodal.core.pictures.decoded``.
    """
    picture = decoded(value, mode, edge)
    with refusing("no picture", f"{in_words(value)} is no picture that can be read"):
        return _on_ground(_of_eight_bits(ImageOps.exif_transpose(picture)), background).convert(mode)


def check_background(encoder: str, background: str) -> None:
    """Raise a ``UsageError`` if a setting of an encoder is no opaque colour."""
    try:
        opaque = len(ImageColor.getrgb(background)) == 3
    except ValueError:
        opaque = False
    if not opaque:
        raise UsageError(f"{encoder}: background {background!r} is no opaque colour; name one, or write #rrggbb.")


def _of_eight_bits(picture: Image.Image) -> Image.Image:
    if not picture.mode.startswith("I"):
        return picture
    pixels = np.asarray(picture).clip(0, 65535)  # of 16 bits; Pillow's own conversion would cut at 255
    grey = Image.fromarray((pixels // 257).astype(np.uint8))
    if "transparency" in picture.info:  # a PNG may name the one grey that is clear
        grey.putalpha(Image.fromarray(np.where(pixels == picture.info["transparency"], 0, 255).astype(np.uint8)))
    return grey


def _on_ground(picture: Image.Image, background: str) -> Image.Image:
    if not picture.has_transparency_data:
        return picture
    if picture.mode == "La":  # premultiplied; Pillow converts it to nothing else
        picture = picture.convert("LA")
    ground = Image.new("RGBA", picture.size, background)
    ground.alpha_composite(picture.convert("RGBA"))
    return ground.convert("RGB")
