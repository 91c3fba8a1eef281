"""Corruptions of pictures, of the sizes that Hendrycks and Dietterich 2019 call severity 2 or so."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from multimodal.core.encoder import Corruption
from multimodal.media.image import read_picture

NOISE = 0.12  # standard deviation of the noise, where black is 0 and white 1
BLUR = 0.02  # radius, as a fraction of the shorter edge
CROP = 0.8  # edges of what is left, as a fraction
CONTRAST = 0.4  # of the original one
JPEG_QUALITY = 10
COVERED = 0.3  # edges of the covered rectangle, as a fraction


def add_noise(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return a picture with normal noise in each pixel and channel."""
    pixels = np.asarray(picture, dtype=np.float32)
    noisy = pixels + 255 * NOISE * rng.normal(size=pixels.shape).astype(np.float32)
    return Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))


def blur(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return a picture out of focus."""
    return picture.filter(ImageFilter.GaussianBlur(max(1.0, BLUR * min(picture.size))))


def crop(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return a random section of a picture, with 0.8 of its width and height."""
    width, height = (max(1, round(CROP * edge)) for edge in picture.size)
    left, top = (int(rng.integers(a - b + 1)) for a, b in zip(picture.size, (width, height), strict=True))
    return picture.crop((left, top, left + width, top + height))


def lower_contrast(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return a picture with 0.4 of its contrast."""
    return ImageEnhance.Contrast(picture).enhance(CONTRAST)


def compress(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return a picture as a JPEG file of quality 10 shows it."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return Image.open(buffer).convert("RGB")


def cover(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return a picture with a grey rectangle at a random place, of 0.3 of its width and height."""
    width, height = (max(1, round(COVERED * edge)) for edge in picture.size)
    left, top = (int(rng.integers(a - b + 1)) for a, b in zip(picture.size, (width, height), strict=True))
    covered = picture.copy()
    covered.paste((127, 127, 127), (left, top, left + width, top + height))
    return covered


_CORRUPTIONS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "noise": add_noise,
    "blur": blur,
    "crop": crop,
    "low contrast": lower_contrast,
    "JPEG": compress,
    "covered": cover,
}


def picture_corruptions(background: str = "white") -> dict[str, Corruption]:
    """Return corruptions of pictures in all forms that ``read_picture`` reads; they return RGB pictures.

    Args:
        background: the colour that transparent parts are filled with, by name or as #rrggbb.

    Examples:
        >>> corruptions = picture_corruptions()
        >>> list(corruptions)
        ['noise', 'blur', 'crop', 'low contrast', 'JPEG', 'covered']
        >>> corruptions["crop"](np.zeros((20, 30), np.uint8), np.random.default_rng(0)).size
        (24, 16)
    """

    def of(corrupt: Callable[[Image.Image, np.random.Generator], Image.Image]) -> Corruption:
        def corrupted(value: Any, rng: np.random.Generator) -> Image.Image:
            return corrupt(read_picture(value, "RGB", None, background), rng)

        return corrupted

    return {name: of(corrupt) for name, corrupt in _CORRUPTIONS.items()}
