"""The spans of a sound: its seconds, or shorter ones if it is short."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from multimodal.core.parts import Changes, Parts, nothing_left
from multimodal.media.shading import Shading, tip

LENGTHS = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02)  # of a span, in seconds
WANTED = 6  # spans; the longest length that gives as many is taken
BARS = 160  # of the drawing
WIDTH, HEIGHT = 640, 96  # of the drawing, in pixels


def span_parts(
    seconds: float, without: Callable[[float, float], Any], loudness: Sequence[float] | np.ndarray, start: float = 0.0
) -> Parts:
    """Take a sound apart into spans of equal length, the last of which may be shorter.

    Args:
        seconds: the length of the sound.
        without: from the beginning and the end of a span, in seconds of the sound, to the item in which it is silent.
        loudness: at equal distances along the sound, for the drawing; on any scale, at least 0.
        start: where the sound begins in the recording, in seconds; it is added in the names of the spans.

    Examples:
        >>> parts = span_parts(0.75, lambda begin, end: (begin, end), [1.0, 0.5], start=0.1)
        >>> len(parts), parts.names[-1], parts.without(0)
        (8, '0.80 to 0.85 s', (0.0, 0.1))
    """
    length = next((length for length in LENGTHS if seconds / length >= WANTED), LENGTHS[-1])
    count = max(1, int(np.ceil(round(seconds / length, 6))))
    edges = [round(min(number * length, seconds), 6) for number in range(count)] + [seconds]
    spans = list(itertools.pairwise(edges))
    digits = 0 if length == 1.0 and start == 0.0 and float(seconds).is_integer() else 2
    names = [f"{begin + start:.{digits}f} to {end + start:.{digits}f} s" for begin, end in spans]

    def item_without(number: int) -> Any:
        if len(spans) == 1:
            raise nothing_left(names[0])
        return without(*spans[number])

    def draw(changes: Changes) -> str:
        return _draw(spans, names, changes, np.asarray(loudness, dtype=np.float64), seconds)

    return Parts(names, item_without, ["span"] * count, draw)


def _draw(
    spans: Sequence[tuple[float, float]],
    names: Sequence[str],
    changes: Changes,
    loudness: np.ndarray,
    seconds: float,
) -> str:
    """Return the sound as bars of its loudness, on the colours of its spans."""
    shading = Shading.of(changes)
    across = WIDTH / seconds
    colours = "".join(
        f'<rect x="{begin * across:.1f}" y="0" width="{(end - begin) * across:.1f}" height="{HEIGHT}"'
        f' fill="{shading.colour(change)}" fill-opacity="{shading.opacity(change)}"><title>{tip(name, change)}</title></rect>'
        for (begin, end), name, change in zip(spans, names, changes, strict=True)
    )
    bars = ""
    for number, block in enumerate(np.array_split(loudness, min(BARS, len(loudness)))):
        step = WIDTH / min(BARS, len(loudness))
        height = max(2.0, 0.85 * HEIGHT * float(block.max()) / max(float(loudness.max()), 1e-12))
        bars += (
            f'<rect x="{(number + 0.15) * step:.1f}" y="{(HEIGHT - height) / 2:.1f}" width="{0.7 * step:.1f}"'
            f' height="{height:.1f}" fill="currentColor" pointer-events="none"/>'
        )
    ticks = "".join(
        f'<text x="{x}" y="{HEIGHT + 16}" text-anchor="{anchor}" font-size="13" fill="currentColor">{text}</text>'
        for x, anchor, text in ((0, "start", names[0].split(" ")[0]), (WIDTH, "end", names[-1].split(" to ")[1]))
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + 22}" width="{WIDTH}" height="{HEIGHT + 22}" role="img"'
        f' style="max-width: 100%; height: auto;" aria-label="The sound, with its spans coloured">{colours}{bars}{ticks}</svg>'
    )
