"""Outlines as graphs: points joined along their contours, of characters and of drawings alike."""

from __future__ import annotations

import numpy as np

ON_CURVE, STARTS, ENDS_OPEN = 1, 2, 4  # bits of a point's flags


def contour_graph(points: np.ndarray, flags: np.ndarray, centre: float = 0.0) -> dict[str, np.ndarray]:
    """Convert contours to a graph.

    Args:
        points: ``(p, 2)`` float32 coordinates, y upwards.
        flags: ``(p,)`` uint8; ``ON_CURVE``: the point is on the curve; ``STARTS``: it starts a contour; ``ENDS_OPEN``: it ends
            a contour that is not closed.
        centre: subtracted from x in the points' features.

    Returns:
        ``x`` ``(p, 4)`` float32: x, y, on-curve, contour start; ``edge_index`` ``(2, 2e)`` int64: e edges along the contours,
        and back; ``edge_attr`` ``(2e, 3)`` float32: dx, dy, and 1 along the contour or -1 back.

    Examples:
        >>> corner = np.array([[0, 0], [1, 0], [1, 1]], np.float32)
        >>> contour_graph(corner, np.array([3, 1, 1], np.uint8))["edge_index"].tolist()
        [[0, 1, 2, 1, 2, 0], [1, 2, 0, 0, 1, 2]]
        >>> contour_graph(corner, np.array([3, 1, 5], np.uint8))["edge_index"].tolist()
        [[0, 1, 1, 2], [1, 2, 0, 1]]
    """
    start = (flags & STARTS) > 0
    point = np.arange(len(points))
    starts = np.flatnonzero(start)
    contour = np.cumsum(start) - 1
    ends = np.append(starts[1:], len(points)) - 1
    next_point = point + 1
    next_point[ends] = starts[contour[ends]]
    x = np.stack([points[:, 0] - centre, points[:, 1], flags & ON_CURVE, start], axis=1).astype(np.float32)
    joined = (flags & ENDS_OPEN) == 0
    point, next_point = point[joined], next_point[joined]
    step = points[next_point] - points[point]
    edge_attr = np.concatenate([step, np.ones_like(step[:, :1])], axis=1)
    return {
        "x": x,
        "edge_index": np.stack([np.append(point, next_point), np.append(next_point, point)]),
        "edge_attr": np.concatenate([edge_attr, -edge_attr]).astype(np.float32),
    }


def is_outline(x: np.ndarray) -> bool:
    """Whether features of nodes ``(p, features)`` are those of an outline, see ``contour_graph``.

    Examples:
        >>> corner = contour_graph(np.array([[0, 0], [1, 0], [1, 1]], np.float32), np.array([3, 1, 1], np.uint8))
        >>> is_outline(corner["x"]), is_outline(corner["edge_attr"])
        (True, False)
    """
    flags = x[:, 2:] if x.ndim == 2 and x.shape[1] == 4 else np.array(2)
    return bool(np.isin(flags, (0, 1)).all()) and bool(flags[0, 1] == 1)


def graph_svg(points: np.ndarray, edges: np.ndarray, size: int = 96) -> str:
    """Draw a graph whose nodes have places as SVG: a line for each edge, a dot for a node without any.

    Args:
        points: ``(p, 2)`` finite coordinates, y upwards.
        edges: ``(2, e)`` int64, the numbers of the points that each edge joins; both directions are drawn once.
        size: width and height in pixels.

    Examples:
        >>> drawn = graph_svg(np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([[0, 1], [1, 0]]))
        >>> 'd="M8 88L88 8"' in drawn
        True
    """
    low, extent = points.min(axis=0), max(float(np.ptp(points, axis=0).max()), 1e-9)
    margin = (extent - np.ptp(points, axis=0)) / 2  # the drawing is in the middle
    placed = 8 + (size - 16) * (points - low + margin) / extent
    placed[:, 1] = size - placed[:, 1]
    places = [f"{x:.0f} {y:.0f}" for x, y in placed.tolist()]
    path, end = [], -1
    for a, b in np.unique(np.sort(edges, axis=0), axis=1).T.tolist():
        path.append(f"L{places[b]}" if a == end else f"M{places[a]}L{places[b]}")
        end = b
    path += [f"M{places[n]}h0" for n in np.setdiff1d(np.arange(len(points)), edges).tolist()]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size}" height="{size}" viewBox="0 0 {size} {size}">'
        f'<path d="{"".join(path)}" stroke="#000" fill="none" stroke-linecap="round"/></svg>'
    )
