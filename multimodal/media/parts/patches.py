"""The patches of a picture."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from multimodal.core.parts import Changes, Parts
from multimodal.media.image import png_url
from multimodal.media.shading import Shading, tip

PATCHES = 8  # on each edge
SHOWN_EDGE = 320  # pixels of the longer edge of the drawing


def patch_parts(pixels: np.ndarray, read: Callable[[np.ndarray], Any]) -> Parts:
    """Take a picture apart into 8 x 8 patches; a patch is removed by filling it with the picture's median colour.

    The median colour is the ground of a drawing and a plain colour of a photo.

    Args:
        pixels: ``(height, width, channels)`` uint8, with 1 or 3 channels.
        read: from such pixels to their item.

    Examples:
        >>> pixels = np.full((16, 16, 1), 255, np.uint8)
        >>> pixels[:2, :2] = 0
        >>> parts = patch_parts(pixels, np.ndarray.min)
        >>> int(parts.without(0)), int(parts.without(1))
        (255, 0)
    """
    tops, lefts = (np.unique(np.linspace(0, edge, PATCHES + 1).round().astype(int)) for edge in pixels.shape[:2])
    boxes = [
        (slice(int(top), int(bottom)), slice(int(left), int(right)))
        for top, bottom in itertools.pairwise(tops)
        for left, right in itertools.pairwise(lefts)
    ]
    names = [
        f"row {number // (len(lefts) - 1) + 1}, column {number % (len(lefts) - 1) + 1}" for number in range(len(boxes))
    ]
    fill = np.median(pixels.reshape(-1, pixels.shape[2]), axis=0).round().astype(np.uint8)

    def without(number: int) -> Any:
        filled = pixels.copy()
        filled[boxes[number]] = fill
        return read(filled)

    def draw(changes: Changes) -> str:
        height, width = pixels.shape[:2]
        # in shades of grey, so that the colours of the patches are seen
        picture = Image.fromarray(pixels.squeeze(-1) if pixels.shape[2] == 1 else pixels).convert("L")
        scale = SHOWN_EDGE / max(height, width)
        shading = Shading.of(changes)
        squares = "".join(
            f'<rect x="{columns.start}" y="{rows.start}" width="{columns.stop - columns.start}"'
            f' height="{rows.stop - rows.start}" fill="{shading.colour(change)}" fill-opacity="{shading.opacity(change)}">'
            f"<title>{tip(name, change)}</title></rect>"
            for (rows, columns), name, change in zip(boxes, names, changes, strict=True)
        )
        return (
            f'<svg viewBox="0 0 {width} {height}" width="{round(width * scale)}" height="{round(height * scale)}"'
            f' style="max-width: 100%; height: auto;" role="img" aria-label="The picture, with its patches coloured">'
            f'<image href="{png_url(picture)}" width="{width}" height="{height}" style="image-rendering: pixelated;"/>'
            f"{squares}</svg>"
        )

    return Parts(names, without, ["patch"] * len(names), draw)
