"""Pictures that are drawn a little differently: turned, scaled, shifted, with thicker or thinner strokes, on another colour."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from multimodal.media.image import conversion_errors, on_white, open_picture, png_file
from multimodal.prepare.cleaning import File
from multimodal.prepare.synthesize.recipe import Made, Recipe

CHANGES = ("rotation", "scale", "shift", "stroke", "background")
LONGEST_EDGE = 1024  # pixels of a picture that is made
MAX_DEGREES = 15.0
MAX_SCALE = 1.2  # and 1 / 1.2
MAX_SHIFT = 0.08  # of the edges
PLAIN = 0.4  # fraction of the pixels that have the colour of the edge, in a picture with a plain background
SAME_COLOUR = 24  # largest difference of a channel within one colour
LIGHTEST, DARKEST = 256, 200  # channels of a background


class PictureVariants(Recipe):
    """Draws variants of a picture, each changed in some ways at random.

    - rotation by up to 15 degrees, scale by up to 1.2 and shift by up to 8 % of the edges; what comes in from outside has the
      colour of the picture's edge;
    - stroke: lines become a pixel thicker or thinner, and background: a light colour takes the place of the one at the edge;
      both only where the background is plain.

    Pictures have at most 1,024 pixels along an edge; transparent ones become white behind.

    Args:
        column: the column of pictures.
        changes: those of ``CHANGES`` to make; each is made in three of four variants.
        count: variants of each picture, at least 1.

    Examples:
        >>> square = np.full((32, 32), 255, np.uint8)
        >>> square[8:24, 8:24] = 0
        >>> cell = File(png_file(Image.fromarray(square)), "square.png")
        >>> made = PictureVariants("photo").make({"photo": cell}, np.random.default_rng(0))
        >>> made[0].value.name, made[0].made_by
        ('square-made-1.png', 'picture: rotated 3, scaled 1.09, shifted 0 2, thinner')
    """

    name = "pictures"

    def __init__(self, column: str, changes: Sequence[str] = CHANGES, count: int = 1) -> None:
        self.column, self.changes, self.count = column, changes, count

    def make(self, values: Mapping[str, Any], rng: np.random.Generator) -> list[Made]:
        cell = values.get(self.column)
        if not isinstance(cell, File):
            return []
        with conversion_errors(cell.data):
            picture = on_white(open_picture(cell.data))
        picture.thumbnail((LONGEST_EDGE, LONGEST_EDGE))
        stem = PurePosixPath(cell.name).stem or "picture"
        made = []
        for number in range(1, self.count + 1):
            variant, made_by = vary(picture, self.changes, rng)
            made.append(Made(self.column, File(png_file(variant), f"{stem}-made-{number}.png"), f"picture: {made_by}"))
        return made


def vary(picture: Image.Image, changes: Sequence[str], rng: np.random.Generator) -> tuple[Image.Image, str]:
    """Draw a variant of an RGB picture.

    Args:
        picture: the picture.
        changes: those of ``CHANGES`` to make.
        rng: random numbers.

    Returns:
        The variant, of the same size, and what was changed. At least one change is made.
    """
    chosen = [change for change in changes if rng.random() < 0.75] or [changes[int(rng.integers(len(changes)))]]
    pixels = np.asarray(picture)
    colour = edge_colour(pixels)
    plain = bool((_distance(pixels, colour) <= SAME_COLOUR).mean() >= PLAIN)
    grey = bool((pixels == pixels[..., :1]).all())
    said = []
    if "stroke" in chosen and plain and min(picture.size) >= 12:
        picture, what = _stroke(picture, colour, bool(rng.random() < 0.5))
        said.append(what)
    degrees = float(rng.uniform(-MAX_DEGREES, MAX_DEGREES)) if "rotation" in chosen else 0.0
    scale = float(MAX_SCALE ** rng.uniform(-1, 1)) if "scale" in chosen else 1.0
    shift = rng.uniform(-MAX_SHIFT, MAX_SHIFT, 2) * picture.size if "shift" in chosen else np.zeros(2)
    if {"rotation", "scale", "shift"} & {*chosen}:
        picture = picture.transform(
            picture.size,
            Image.Transform.AFFINE,
            _inverse(picture.size, degrees, scale, shift),
            Image.Resampling.BICUBIC,
            fillcolor=tuple(int(channel) for channel in colour),
        )
        said = [
            *([f"rotated {degrees:.0f}"] if "rotation" in chosen else []),
            *([f"scaled {scale:.2f}"] if "scale" in chosen else []),
            *([f"shifted {shift[0]:.0f} {shift[1]:.0f}"] if "shift" in chosen else []),
            *said,
        ]
    if "background" in chosen and plain:
        new = rng.integers(DARKEST, LIGHTEST, 3)
        picture = _on_background(picture, colour, new)
        said.append("background #" + "".join(f"{channel:02x}" for channel in new.tolist()))
    elif grey:
        picture = picture.convert("L")
    return picture, ", ".join(said) or "same"


def edge_colour(pixels: np.ndarray) -> np.ndarray:
    """Return the median colour of a picture's edge.

    Args:
        pixels: ``(h, w, 3)`` uint8.

    Returns:
        ``(3,)`` int64.
    """
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return np.median(edge, axis=0).astype(np.int64)


def _distance(pixels: np.ndarray, colour: np.ndarray) -> np.ndarray:
    return np.abs(pixels.astype(np.int64) - colour).max(axis=-1)


def _stroke(picture: Image.Image, colour: np.ndarray, thicker: bool) -> tuple[Image.Image, str]:
    """Make what is drawn on a plain background a pixel wider or narrower."""
    on_light = bool(colour.mean() >= 128)
    filtered = ImageFilter.MinFilter(3) if thicker == on_light else ImageFilter.MaxFilter(3)
    return picture.filter(filtered), "thicker" if thicker else "thinner"


def _inverse(size: tuple[int, int], degrees: float, scale: float, shift: np.ndarray) -> tuple[float, ...]:
    """Return the coefficients by which Pillow finds the old place of each new pixel."""
    centre = np.array(size) / 2
    cos, sin = (f(math.radians(degrees)) / scale for f in (math.cos, math.sin))
    back = np.array([[cos, -sin], [sin, cos]])
    offset = centre - back @ (centre + shift)
    return (*back[0].tolist(), float(offset[0]), *back[1].tolist(), float(offset[1]))


def _on_background(picture: Image.Image, colour: np.ndarray, new: np.ndarray) -> Image.Image:
    """Replace a picture's background, and blend the pixels between it and what is drawn."""
    pixels = np.asarray(picture).astype(np.float64)
    covered = np.clip(_distance(np.asarray(picture), colour) / 96, 0, 1)[..., None]
    return Image.fromarray((pixels + (1 - covered) * (new - colour)).round().clip(0, 255).astype(np.uint8))
