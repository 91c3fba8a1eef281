"""``/sketch``: what drawings have to look like for the model to find its pictures.

A model that was trained with drawings knows their size, margin and line width. They are measured on pictures of the index, so
that the page can prepare what is drawn on its canvas in the same way.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
from fastapi import APIRouter

from multimodal.core.errors import MultimodalError
from multimodal.media.image import read_picture
from multimodal.serve.index_sample import sample_index
from multimodal.serve.rows import Rows
from multimodal.serve.service import Service

SAMPLED = 64  # pictures that are measured
EDGE = 192  # pixels to which larger ones are reduced
PAPER = 0.5  # least fraction of a drawing's pixels that are background
NEAR = 0.1  # of the range of brightness: pixels of one colour


@dataclass(frozen=True)
class SketchStyle:
    """How a drawing is prepared.

    Attributes:
        side: the longer side of what is drawn, as a fraction of the picture's edge.
        width: width of the lines, as a fraction of the picture's edge.
        dark: whether lines are dark on light.

    Examples:
        >>> SketchStyle(side=0.5, width=0.06)
        SketchStyle(side=0.5, width=0.06, dark=True)
    """

    side: float = 0.8
    width: float = 0.03
    dark: bool = True

    @classmethod
    def of(cls, pictures: Iterable[np.ndarray]) -> SketchStyle:
        """Measure pictures; if less than half of them are drawings (lines on one colour), the default is returned.

        Args:
            pictures: ``(h, w)`` uint8 grey pictures.

        Examples:
            >>> line = np.full((48, 48), 255, np.uint8)
            >>> line[22:26, 12:36] = 0
            >>> SketchStyle.of([line])
            SketchStyle(side=0.5, width=0.071, dark=True)
        """
        measured = [_measure(picture) for picture in pictures]
        known = [found for found in measured if found is not None]
        if not known or 2 * len(known) < len(measured):
            return cls()
        side, width, dark = np.median(np.array(known, dtype=float), axis=0).tolist()
        return cls(round(side, 3), round(width, 3), dark >= 0.5)


def _measure(picture: np.ndarray) -> tuple[float, float, bool] | None:
    """Return side, width and whether lines are dark; None: it is not a drawing."""
    grey = picture.astype(np.float64) / 255
    paper = float(np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])))
    if np.mean(abs(grey - paper) < NEAR) < PAPER or (most := abs(grey - paper).max()) < 0.5:
        return None
    ink = abs(grey - paper) / most
    drawn = ink > 0.5
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    side = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    framed = np.pad(drawn, 1)
    edges = np.count_nonzero(np.diff(framed, axis=0)) + np.count_nonzero(np.diff(framed, axis=1))
    # A line of width w and length l has w * l of ink, and about 2 * l of edge.
    return float(side / max(grey.shape)), float(2 * ink.sum() / edges / max(grey.shape)), paper > 0.5


def sketch_routes(service: Service, rows: Rows) -> APIRouter:
    """Return the route that says how drawings are prepared; pictures are measured at the first request."""
    router, measuring = APIRouter(), threading.Lock()
    known: list[SketchStyle] = []

    def measure() -> SketchStyle:
        with measuring:
            if not known:
                known.append(SketchStyle.of(_sample(service, rows)))
            return known[0]

    @router.get("/sketch")
    async def sketch() -> dict[str, float | bool]:
        """Say how large what is drawn has to be in its picture, and how wide its lines, as fractions of the edge."""
        return asdict(await service.in_thread(measure, service.readers))

    return router


def _sample(service: Service, rows: Rows) -> Iterable[np.ndarray]:
    from multimodal.serve.about import kind_of

    images = [m for m in service.index.modalities if kind_of(m, type(service.embedder.encoder(m))) == "image"]
    if not images or not rows.known:
        return
    keys = sorted(set(sample_index(service.index, images[0])[1]["key"].to_pylist()))
    for place in np.random.default_rng(0).permutation(len(keys))[:SAMPLED]:
        value = rows.values(keys[place]).get(images[0])
        if value is None:
            continue
        try:
            picture = read_picture(value, "L", EDGE, "white")
        except MultimodalError:
            continue
        picture.thumbnail((EDGE, EDGE))
        yield np.asarray(picture)
