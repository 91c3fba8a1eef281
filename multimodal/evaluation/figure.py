"""Figures of a report: a title, and a chart as SVG that follows the page's colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, isfinite, log2, log10

COLOURS = 8  # classes s0 to s7 of the page's style
WIDTH, HEIGHT = 420, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 20, 10, 42  # margins around the lines


@dataclass(frozen=True)
class Figure:
    """A chart under a title. A section may offer some: ``figures() -> list[Figure]``, next to its tables.

    Args:
        title: a line above it; any text.
        svg: an ``svg`` element, or other HTML; it is not escaped, so the texts in it must be.
    """

    title: str
    svg: str


def line_chart(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    x_title: str,
    *,
    y_range: tuple[float, float] | None = None,
    per_cent: bool = False,
    doubling: bool = False,
) -> str:
    """Draw lines as SVG, with axes and a legend below them.

    Args:
        lines: name -> its points (x, y), in order; points that are not finite are left out.
        x_title: title of the horizontal axis.
        y_range: lowest and highest y. None: those of the points.
        per_cent: whether y is written as per cent.
        doubling: whether equal steps along the horizontal axis double x, which is more than 0.

    Returns:
        HTML: the ``svg`` element and the legend.

    Examples:
        >>> chart = line_chart({"loss": [(0, 2.0), (10, 1.0)]}, "step")
        >>> 'd="M46.0 10.0L400.0 178.0"' in chart
        True
    """
    finite = {
        name: [(log2(x) if doubling else float(x), float(y)) for x, y in line if isfinite(x) and isfinite(y)]
        for name, line in lines.items()
    }
    points = [point for line in finite.values() for point in line]
    if not points:
        return '<p class="soft">There are no values to draw.</p>\n'
    xs = [x for x, _ in points]
    low, high = y_range or (min(y for _, y in points), max(y for _, y in points))
    left, right = min(xs), max(xs)
    high, right = (high if high > low else low + 1), (right if right > left else left + 1)

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * (x - left) / (right - left)
        return across, TOP + (HEIGHT - TOP - BOTTOM) * (high - y) / (high - low)

    parts = []
    for y in _ticks(low, high):
        _, down = place(left, y)
        label = f"{100 * y:.3g} %" if per_cent else f"{y:.4g}"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down:.1f}" y2="{down:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{down + 4:.1f}" text-anchor="end">{label}</text>')
    for x in range(ceil(left), floor(right) + 1) if doubling else _ticks(left, right):
        across, _ = place(x, low)
        label = f"{2**x if doubling else x:,.0f}" if doubling or right >= 1000 else f"{x:.4g}"
        parts.append(f'<text x="{across:.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{label}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 3}" text-anchor="middle">{escape(x_title)}</text>')
    legend = []
    for number, (name, line) in enumerate(finite.items()):
        colour = f"s{number % COLOURS}"
        path = "L".join("{:.1f} {:.1f}".format(*place(x, y)) for x, y in line)
        if line:
            parts.append(f'<path class="line {colour}" d="M{path}"/>')
        dots = line if len(line) <= 30 else []
        places = (place(x, y) for x, y in dots)
        parts += [f'<circle class="{colour}" cx="{a:.1f}" cy="{b:.1f}" r="2.5"/>' for a, b in places]
        legend.append(f'<span><i class="{colour}"></i>{escape(name)}</span>')
    names = escape(", ".join(finite))
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{names} over {escape(x_title)}">\n'
        f'{"".join(parts)}</svg>\n<p class="legend">{" ".join(legend)}</p>\n'
    )


def _ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers between two."""
    rough = (high - low) / 4
    power = 10.0 ** floor(log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.99)
    first = -floor(-low / step)
    return [round(n * step, 12) for n in range(first, floor(high / step + 1e-9) + 1)]
