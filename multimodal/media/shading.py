"""Colours for how much of a score a part is worth, the same in all drawings of an explanation.

A part that speaks for the match is orange, one that speaks against it blue; the more it is worth, the more opaque. Both
colours differ in brightness too, can be distinguished by colour-blind people, and leave text readable on light and on dark
pages. Lines and texts of a drawing have the colour of the page's text (``currentColor``).
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

FOR, AGAINST = "#f08c00", "#1c7ed6"
MAX_OPACITY = 0.8
LEAST = 1e-6  # a change of a cosine that rounding alone makes


@dataclass(frozen=True)
class Shading:
    """How parts are coloured, relative to the part that is worth most.

    Args:
        largest: the largest worth, for or against the match.

    Examples:
        >>> shading = Shading.of([0.4, -0.1, float("nan")])
        >>> shading.colour(0.4), shading.opacity(0.4), shading.colour(-0.1), shading.opacity(-0.1)
        ('#f08c00', 0.8, '#1c7ed6', 0.2)
    """

    largest: float

    @classmethod
    def of(cls, changes: Sequence[float]) -> Shading:
        """Return the shading of a value's parts; those whose worth is NaN have no colour."""
        known = [abs(change) for change in changes if math.isfinite(change)]
        largest = max(known, default=0.0)
        return cls(largest if largest >= LEAST else math.inf)

    def colour(self, change: float) -> str:
        """Return the colour of a part as ``#rrggbb``."""
        return AGAINST if change < 0 else FOR

    def opacity(self, change: float) -> float:
        """Return the opacity of a part's colour, from 0 to ``MAX_OPACITY``."""
        return round(MAX_OPACITY * abs(change) / self.largest, 3) if math.isfinite(change) else 0.0

    def rgba(self, change: float) -> str:
        """Return colour and opacity as CSS.

        Examples:
            >>> Shading(0.4).rgba(-0.2)
            'rgba(28, 126, 214, 0.4)'
        """
        red, green, blue = (int(self.colour(change)[at : at + 2], 16) for at in (1, 3, 5))
        return f"rgba({red}, {green}, {blue}, {self.opacity(change)})"


def tip(name: str, change: float) -> str:
    """Return the text that is shown where the pointer is on a part, escaped.

    Examples:
        >>> tip("<cup>", 0.25), tip("cup", float("nan"))
        ('&lt;cup&gt;: +0.250', 'cup: not known')
    """
    return html.escape(f"{name}: {change:+.3f}" if math.isfinite(change) else f"{name}: not known")
