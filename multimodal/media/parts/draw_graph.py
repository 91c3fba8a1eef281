"""A graph whose nodes have places, drawn with the worth of its parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from multimodal.core.parts import Changes
from multimodal.media.shading import Shading, tip

EDGE = 320  # pixels of the longer edge of the drawing
MARGIN = 16


def draw_graph(
    points: np.ndarray,
    pairs: np.ndarray,
    names: Sequence[str],
    of_nodes: Changes,
    of_edges: Changes,
    of_strokes: Changes = (),
    strokes: np.ndarray | None = None,
) -> str:
    """Return the drawing as SVG: colours below lines and points in the colour of the page's text.

    Args:
        points: ``(nodes, 2)``, y upwards.
        pairs: ``(edges, 2)``, the nodes of each edge.
        names: of the nodes, edges and strokes that have a worth, in this order.
        of_nodes, of_edges, of_strokes: the worth of each; of nodes and edges, empty: they have none.
        strokes: ``(nodes,)``, the stroke of each node; None: there are none.

    Examples:
        >>> drawing = draw_graph(np.array([[0, 0], [1, 1]]), np.array([[0, 1]]), ["a", "b", "ab"], [0.2, 0.0], [0.1])
        >>> drawing.count("<circle"), drawing.count("<line"), "<title>a: +0.200</title>" in drawing
        (4, 2, True)
    """
    low, high = points.min(axis=0), points.max(axis=0)
    scale = (EDGE - 2 * MARGIN) / (float((high - low).max()) or 1.0)
    places = (points - low) * scale
    width, height = (high - low) * scale + 2 * MARGIN
    x, y = places[:, 0] + MARGIN, height - MARGIN - places[:, 1]
    dot = float(np.clip(EDGE / (8 * len(points) ** 0.5), 2.5, 9))  # radius of a colour
    shading, of_whole_strokes = Shading.of([*of_nodes, *of_edges]), Shading.of(of_strokes)  # strokes are worth more
    bands, colours, lines = [], [], []
    for number, (a, b) in enumerate(pairs.tolist()):
        ends = f'x1="{x[a]:.1f}" y1="{y[a]:.1f}" x2="{x[b]:.1f}" y2="{y[b]:.1f}"'
        if strokes is not None:
            worth, name = of_strokes[int(strokes[a])], names[len(of_nodes) + len(of_edges) + int(strokes[a])]
            bands.append(_line(ends, of_whole_strokes, worth, name, 2.6 * dot))
        if of_edges:
            colours.append(_line(ends, shading, of_edges[number], names[len(of_nodes) + number], 1.3 * dot))
        lines.append(f'<line {ends} stroke="currentColor" stroke-width="1.2" pointer-events="none"/>')
    for number, worth in enumerate(of_nodes):
        colours.append(
            f'<circle cx="{x[number]:.1f}" cy="{y[number]:.1f}" r="{dot:.1f}" fill="{shading.colour(worth)}"'
            f' fill-opacity="{shading.opacity(worth)}"><title>{tip(names[number], worth)}</title></circle>'
        )
    dots = (
        f'<circle cx="{x[n]:.1f}" cy="{y[n]:.1f}" r="1.8" fill="currentColor" pointer-events="none"/>'
        for n in range(len(points))
    )
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" role="img"'
        f' style="max-width: 100%; height: auto;" aria-label="The graph, with its parts coloured">'
        f'<g opacity="0.5">{"".join(bands)}</g>'
        f"{''.join(colours)}{''.join(lines)}{''.join(dots)}</svg>"
    )


def _line(ends: str, shading: Shading, worth: float, name: str, width: float) -> str:
    return (
        f'<line {ends} stroke="{shading.colour(worth)}" stroke-opacity="{shading.opacity(worth)}"'
        f' stroke-width="{width:.1f}" stroke-linecap="round"><title>{tip(name, worth)}</title></line>'
    )
