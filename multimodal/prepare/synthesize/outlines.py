"""Outlines that are drawn again: other points of the same contours, moved a little, turned, scaled and sheared."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from multimodal.core.errors import Unreadable
from multimodal.media.outline import ENDS_OPEN, ON_CURVE, STARTS, contour_graph, is_outline
from multimodal.prepare.cleaning import File
from multimodal.prepare.synthesize.recipe import Made, Recipe

JITTER = 0.004  # standard deviation of the points' places, as a fraction of the outline's longer side
MAX_DEGREES = 8.0
MAX_SCALE = 1.15  # of each direction, and 1 / 1.15
MAX_SHEAR = 0.12
INSERTED = 0.3  # fraction of the places for a further point that get one
MAX_POINTS = 20_000
MAX_BYTES = 2**24  # of a JSON file
DECIMALS = 4


class OutlineVariants(Recipe):
    """Draws outlines again: graphs of the form of ``contour_graph``, as mappings of lists or JSON files.

    Points are added to the contours without changing their shape, closed contours start elsewhere; then every point is moved by
    chance, and the whole is turned by up to 8 degrees, scaled and sheared. Other graphs are left alone.

    Args:
        column: the column of graphs.
        count: variants of each outline, at least 1.

    Examples:
        >>> corner = contour_graph(np.array([[0, 0], [1, 0], [1, 1]], np.float32), np.array([3, 1, 1], np.uint8))
        >>> cell = {name: values.tolist() for name, values in corner.items()}
        >>> made = OutlineVariants("outline").make({"outline": cell}, np.random.default_rng(0))
        >>> is_outline(np.array(made[0].value["x"])), made[0].made_by
        (True, 'outline: 3 to 6 points, rotated 5')
    """

    name = "outlines"

    def __init__(self, column: str, count: int = 1) -> None:
        self.column, self.count = column, count

    def make(self, values: Mapping[str, Any], rng: np.random.Generator) -> list[Made]:
        cell = values.get(self.column)
        if cell is None or (outline := read_outline(cell)) is None:
            return []
        points, flags = outline
        made = []
        for number in range(1, self.count + 1):
            new_points, new_flags = add_points(*start_elsewhere(points, flags, rng), rng)
            new_points, degrees = move(new_points, rng)
            graph = cell_of(contour_graph(new_points.astype(np.float32), new_flags))
            made_by = f"outline: {len(points)} to {len(new_points)} points, rotated {degrees:.0f}"
            if isinstance(cell, File):
                stem = PurePosixPath(cell.name).stem or "outline"
                graph = File(json.dumps(graph).encode(), f"{stem}-made-{number}.json")
            made.append(Made(self.column, graph, made_by))
        return made


def read_outline(cell: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the points ``(p, 2)`` float64 and flags ``(p,)`` uint8 of an outline; None: the cell is another graph.

    Args:
        cell: a mapping of ``x`` and ``edge_index``, or a JSON file of one.

    Raises:
        Unreadable: the file is not JSON.
    """
    if isinstance(cell, File):
        if len(cell.data) > MAX_BYTES or cell.data.lstrip()[:1] == b"<":
            return None
        try:
            cell = json.loads(cell.data)
        except (ValueError, RecursionError) as error:
            raise Unreadable("not JSON", f"the graph {cell.name} is not JSON: {error}.") from error
    if not isinstance(cell, Mapping) or cell.get("x") is None or cell.get("edge_index") is None:
        return None
    try:
        x = np.asarray(cell["x"], dtype=np.float64)
        ends = np.asarray(cell["edge_index"], dtype=np.int64).reshape(2, -1)
    except (ValueError, TypeError, OverflowError):
        return None
    if not 1 <= len(x) <= MAX_POINTS or not is_outline(x) or not np.isfinite(x).all():
        return None
    flags = x[:, 2].astype(np.uint8) * ON_CURVE | x[:, 3].astype(np.uint8) * STARTS
    starts = np.flatnonzero(x[:, 3])
    last = np.append(starts[1:], len(x)) - 1
    joined = Counter(zip(*ends.tolist(), strict=True))
    for start, end in zip(starts.tolist(), last.tolist(), strict=True):
        if joined[end, start] < 1 + (end == start + 1):  # between two points, the way back is an edge as well
            flags[end] |= ENDS_OPEN
    return x[:, :2], flags


def normalized_graph(cell: Any) -> Any:
    """Return the mapping of a graph with fractions, whole numbers and lists as made ones have them; other cells as given.

    Examples:
        >>> normalized_graph({"x": [[0, 1, 1, 1]], "edge_index": [[], []]})
        {'x': [[0.0, 1.0, 1.0, 1.0]], 'edge_index': [[], []]}
    """
    if not isinstance(cell, Mapping) or cell.get("x") is None or cell.get("edge_index") is None:
        return cell
    kinds = {"x": float, "edge_attr": float, "edge_index": int}
    try:
        entries = {n: np.asarray(cell[n], dtype=kind).tolist() for n, kind in kinds.items() if cell.get(n) is not None}
    except (ValueError, TypeError, OverflowError):  # the encoder will say what is wrong
        return cell
    return dict(cell) | entries


def cell_of(graph: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return a graph as a mapping of lists, numbers rounded to four decimals."""
    return {
        name: (entry.astype(np.float64).round(DECIMALS) if entry.dtype.kind == "f" else entry).tolist()
        for name, entry in graph.items()
    }


def contours(flags: np.ndarray) -> list[slice]:
    """Return the points of each contour.

    Examples:
        >>> contours(np.array([3, 1, 1, 3, 1], np.uint8))
        [slice(0, 3, None), slice(3, 5, None)]
    """
    starts = np.flatnonzero(flags & STARTS)
    return [slice(a, b) for a, b in zip(starts.tolist(), [*starts[1:].tolist(), len(flags)], strict=True)]


def start_elsewhere(points: np.ndarray, flags: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Start each closed contour at another of its points on the curve; its shape is the same.

    Args:
        points: ``(p, 2)`` places.
        flags: ``(p,)`` uint8, see ``contour_graph``.
        rng: random numbers.
    """
    points, flags = points.copy(), flags.copy()
    for part in contours(flags):
        on_curve = np.flatnonzero(flags[part] & ON_CURVE)
        if (flags[part] & ENDS_OPEN).any() or not len(on_curve):
            continue
        first = int(rng.choice(on_curve))
        points[part] = np.roll(points[part], -first, axis=0)
        kinds = np.roll(flags[part] & ON_CURVE, -first)
        kinds[0] |= STARTS
        flags[part] = kinds
    return points, flags


def add_points(points: np.ndarray, flags: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Add points on the curve where they change no shape: half-way between two points of the same kind.

    Between two points on the curve runs a straight line; between two control points of a quadratic curve, the point half-way is
    on the curve (as TrueType implies).

    Args:
        points: ``(p, 2)`` places.
        flags: ``(p,)`` uint8, see ``contour_graph``.
        rng: random numbers.
    """
    new_points, new_flags = [], []
    for part in contours(flags):
        places, kinds = points[part], flags[part]
        is_open = bool(kinds[-1] & ENDS_OPEN)
        for n in range(len(places)):
            new_points.append(places[n])
            new_flags.append(int(kinds[n]))
            following = (n + 1) % len(places)
            between = len(places) > 1 and not (is_open and following == 0)
            if between and (kinds[n] ^ kinds[following]) & ON_CURVE == 0 and rng.random() < INSERTED:
                new_points.append((places[n] + places[following]) / 2)
                new_flags.append(ON_CURVE)
    return np.array(new_points), np.array(new_flags, dtype=np.uint8)


def move(points: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Move every point by chance, and turn, scale and shear all of them around their centre.

    Args:
        points: ``(p, 2)`` places.
        rng: random numbers.

    Returns:
        The new places, and the degrees of the turn.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    centre = (low + high) / 2
    degrees = float(rng.uniform(-MAX_DEGREES, MAX_DEGREES))
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = np.array([[cos, -sin], [sin, cos]])
    shear = np.array([[1.0, float(rng.uniform(-MAX_SHEAR, MAX_SHEAR))], [0.0, 1.0]])
    scale = np.diag(MAX_SCALE ** rng.uniform(-1, 1, 2))
    jitter = JITTER * float((high - low).max()) * rng.normal(size=points.shape)
    return (points - centre + jitter) @ (turn @ shear @ scale).T + centre, degrees
