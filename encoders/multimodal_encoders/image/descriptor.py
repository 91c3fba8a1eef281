"""A description of pictures by which like ones are found without training: a thumbnail, edges and colours."""

from __future__ import annotations

import numpy as np

EDGE, CELL, COARSE, DIRECTIONS, LEVELS = 48, 8, 12, 9, 4
BACKGROUND_WEIGHT = 0.2  # of the lightest colour, which is mostly background


def describe(pictures: np.ndarray) -> np.ndarray:
    """Describe pictures by three parts, each centred over the pictures and of unit length, ``(n, 820)`` float32.

    The parts are a thumbnail of 12 x 12 pixels; histograms of the directions of edges in 6 x 6 cells; and a histogram of 64
    colours.

    Args:
        pictures: ``(n, 48, 48, 3)`` in [0, 1].

    Source: Dalal and Triggs 2005 (edges); Swain and Ballard 1991 (colours); the root of the counts as in Arandjelovic and
    Zisserman 2012.

    Examples:
        >>> describe(np.zeros((2, 48, 48, 3), np.float32)).shape
        (2, 820)
    """
    small = pictures.reshape(len(pictures), COARSE, EDGE // COARSE, COARSE, EDGE // COARSE, 3).mean(axis=(2, 4))
    parts = [
        small.reshape(len(pictures), -1),
        np.stack(list(map(edges, pictures))),
        np.stack(list(map(colours, pictures))),
    ]
    return np.concatenate([_unit(part - part.mean(axis=0)) for part in parts], axis=1)


def edges(picture: np.ndarray) -> np.ndarray:
    """Return the root of the histogram of edge directions in each cell, of unit length; picture: ``(48, 48, 3)`` in [0, 1]."""
    grey = picture.mean(axis=2)
    across, down = np.zeros_like(grey), np.zeros_like(grey)
    across[:, 1:-1], down[1:-1] = grey[:, 2:] - grey[:, :-2], grey[2:] - grey[:-2]
    direction = (np.arctan2(down, across) % np.pi / np.pi * DIRECTIONS).astype(int) % DIRECTIONS
    cell = np.arange(EDGE) // CELL
    cells = EDGE // CELL
    place = (cell[:, None] * cells + cell) * DIRECTIONS + direction
    counts = np.bincount(place.ravel(), weights=np.hypot(across, down).ravel(), minlength=cells * cells * DIRECTIONS)
    return _unit(np.sqrt(counts)[None])[0]


def colours(picture: np.ndarray) -> np.ndarray:
    """Return the root of the histogram of 64 colours, of unit length; picture: ``(48, 48, 3)`` in [0, 1]."""
    levels = (picture * (LEVELS - 0.001)).astype(int)
    place = (levels[..., 0] * LEVELS + levels[..., 1]) * LEVELS + levels[..., 2]
    counts = np.bincount(place.ravel(), minlength=LEVELS**3).astype(float)
    counts[-1] *= BACKGROUND_WEIGHT
    return _unit(np.sqrt(counts)[None])[0]


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)).astype(np.float32)
