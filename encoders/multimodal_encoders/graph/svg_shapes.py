"""The shapes, lengths and transformations of SVG 2, drawn with a pen of fontTools."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

from fontTools.misc.transform import Identity, Transform
from fontTools.svgLib.path import parse_path
from fontTools.svgLib.path.arc import EllipticalArc

Size = tuple[float, float]
MAX_PATH_CHARACTERS = 2 * 2**20
MAX_UNBROKEN = 1000  # characters of an arc's numbers without a separator; the time to read them grows with their square
MAX_LENGTH_CHARACTERS = 100
NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
NUMBERS = re.compile(NUMBER)
LENGTH = re.compile(rf"\s*({NUMBER})\s*([a-zA-Z]*|%)\s*")
ARC = re.compile(r"[Aa]([^MmZzLlHhVvCcSsQqTtAa]*)")
FUNCTION = re.compile(r" ?,? ?([a-zA-Z]+) ?\(([^()]*)\)")
PIXELS = {
    "": 1,
    "px": 1,
    "pt": 4 / 3,
    "pc": 16,
    "in": 96,
    "cm": 96 / 2.54,
    "mm": 9.6 / 2.54,
    "em": 16,
    "rem": 16,
    "ex": 8,
}


@dataclass(frozen=True)
class Box:
    """A rectangle with its sides along the axes.

    Args:
        x: the smallest x.
        y: the smallest y, which is at the top.
        width: its extent in x.
        height: its extent in y.

    Examples:
        >>> Box.of("0 0 24,24").width, Box.of("0 0 0 24"), Box.of(None)
        (24.0, None, None)
    """

    x: float
    y: float
    width: float
    height: float

    @classmethod
    def of(cls, text: str | None) -> Box | None:
        """Read a ``viewBox``; None: there is none, or it is empty."""
        numbers = _floats(text or "")
        if len(numbers) != 4 or min(numbers[2:]) <= 0:
            return None
        return cls(*numbers)


def length(text: str | None, whole: float, default: float = 0.0) -> float:
    """Read a length in pixels.

    Args:
        text: a number with or without a unit. None, or "auto": the default.
        whole: what a percentage is of.
        default: its length if it is not given.

    Raises:
        ValueError: it is not a length.

    Examples:
        >>> length("50%", 24.0), length("1in", 24.0), length(None, 24.0)
        (12.0, 96.0, 0.0)
    """
    if text is None or text.strip() in ("", "auto"):
        return default
    match = LENGTH.fullmatch(text) if len(text) <= MAX_LENGTH_CHARACTERS else None
    if match is None or match[2].lower() not in (*PIXELS, "%"):
        raise ValueError(f"{text[:40]!r} is not a length")
    factor = whole / 100 if match[2] == "%" else PIXELS[match[2].lower()]
    value = float(match[1]) * factor
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]!r} is too large")
    return value


def read_transform(text: str) -> Transform:
    """Read the attribute ``transform``: from the coordinates inside the element to those around it.

    Raises:
        ValueError: it is malformed.

    Examples:
        >>> read_transform("translate(1 2) scale(3)").transformPoint((1, 1))
        (4.0, 5.0)
    """
    transform, position = Identity, 0
    text = " ".join(text.split())
    while match := FUNCTION.match(text, position):
        position = match.end()
        transform = transform.transform(_function(match[1], _floats(match[2])))
    if text[position:].strip():
        raise ValueError(f"{text[:60]!r} is not a transformation")
    return transform


def _function(name: str, numbers: list[float]) -> Transform:
    if name == "matrix" and len(numbers) == 6:
        return Transform(*numbers)
    if name == "translate" and len(numbers) in (1, 2):
        return Identity.translate(*numbers)
    if name == "scale" and len(numbers) in (1, 2):
        return Identity.scale(*numbers)
    if name == "rotate" and len(numbers) in (1, 3):
        x, y = numbers[1:] or (0.0, 0.0)
        return Identity.translate(x, y).rotate(math.radians(numbers[0])).translate(-x, -y)
    if name in ("skewX", "skewY") and len(numbers) == 1:
        angle = math.radians(numbers[0])
        return Identity.skew(angle, 0) if name == "skewX" else Identity.skew(0, angle)
    raise ValueError(f"{name} of {len(numbers)} numbers is not a transformation")


def view_transform(view: Box, size: Size, keep: str) -> Transform:
    """Return the transformation from a ``viewBox`` to the area ``size`` (width, height) that shows it.

    Args:
        view: the ``viewBox``.
        size: the area.
        keep: ``preserveAspectRatio``: "none", or like "xMidYMid meet", the default.
    """
    across, up = size[0] / view.width, size[1] / view.height
    if keep.strip() == "none":
        return Identity.scale(across, up).translate(-view.x, -view.y)
    scale = max(across, up) if "slice" in keep else min(across, up)
    shares = [{"Min": 0.0, "Max": 1.0}.get(axis[1:] if axis else "", 0.5) for axis in _alignment(keep)]
    x, y = ((s - scale * v) * share for s, v, share in zip(size, (view.width, view.height), shares, strict=True))
    return Identity.translate(x, y).scale(scale).translate(-view.x, -view.y)


def _alignment(keep: str) -> tuple[str, str]:
    found = re.match(r"\s*(x(?:Min|Mid|Max))(Y(?:Min|Mid|Max))", keep)
    return (found[1], found[2]) if found else ("", "")


class _Arc(EllipticalArc):
    """An arc that is a straight line where SVG says so: if a radius is 0."""

    def draw(self, pen: Any) -> None:
        curves = list(self._decompose_to_cubic_curves())
        for points in curves:
            pen.curveTo(*((point.real, point.imag) for point in points))
        if not curves and self.target_point != self.current_point:
            pen.lineTo((self.target_point.real, self.target_point.imag))


def _path(element: Element, view: Size, pen: Any) -> None:
    data = " ".join(element.get("d", "").split())
    if len(data) > MAX_PATH_CHARACTERS:
        raise ValueError(f"a path has more than {MAX_PATH_CHARACTERS >> 20} MiB")
    for arc in ARC.finditer(data):
        if max(map(len, re.split(r"[, ]", arc[1]))) > MAX_UNBROKEN:
            raise ValueError("an arc has too many numbers")
    if data and data != "none":
        try:
            parse_path(data, pen, arc_class=_Arc)
        except IndexError as error:  # of its list of numbers
            raise ValueError("a path ends too early") from error


def _line(element: Element, view: Size, pen: Any) -> None:
    x1, y1, x2, y2 = (length(element.get(name), view[name[0] == "y"]) for name in ("x1", "y1", "x2", "y2"))
    pen.moveTo((x1, y1))
    pen.lineTo((x2, y2))


def _polyline(element: Element, view: Size, pen: Any, closed: bool = False) -> None:
    numbers = _floats(element.get("points", ""))
    for position in range(0, len(numbers) - 1, 2):
        (pen.lineTo if position else pen.moveTo)((numbers[position], numbers[position + 1]))
    if closed and len(numbers) > 1:
        pen.closePath()


def _polygon(element: Element, view: Size, pen: Any) -> None:
    _polyline(element, view, pen, closed=True)


def _rect(element: Element, view: Size, pen: Any) -> None:
    (x, width), (y, height) = (
        (length(element.get(start), side), length(element.get(extent), side))
        for start, extent, side in (("x", "width", view[0]), ("y", "height", view[1]))
    )
    if width <= 0 or height <= 0:
        return
    across, down = (_radius(element.get(name), side) for name, side in (("rx", view[0]), ("ry", view[1])))
    rx = min(width / 2, across if across is not None else down or 0.0)
    ry = min(height / 2, down if down is not None else across or 0.0)
    right, bottom = x + width, y + height
    corners = [
        ((x + rx, y), (right - rx, y), (right, y + ry)),
        ((right, y + ry), (right, bottom - ry), (right - rx, bottom)),
        ((right - rx, bottom), (x + rx, bottom), (x, bottom - ry)),
        ((x, bottom - ry), (x, y + ry), (x + rx, y)),
    ]
    pen.moveTo(corners[0][0])
    for _, end, around in corners:  # along a side, then around its corner
        pen.lineTo(end)
        if rx and ry:
            _Arc(complex(*end), rx, ry, 0, False, True, complex(*around)).draw(pen)
    pen.closePath()


def _radius(text: str | None, whole: float) -> float | None:
    """Return a radius; None: it is not given, or negative, which counts as not given."""
    radius = length(text, whole, default=-1.0)
    return None if radius < 0 else radius


def _ellipse(element: Element, view: Size, pen: Any) -> None:
    across, down = (_radius(element.get(name), side) for name, side in (("rx", view[0]), ("ry", view[1])))
    _draw_ellipse(element, view, pen, across if across is not None else down, down if down is not None else across)


def _circle(element: Element, view: Size, pen: Any) -> None:
    radius = _radius(element.get("r"), math.hypot(*view) / math.sqrt(2))
    _draw_ellipse(element, view, pen, radius, radius)


def _draw_ellipse(element: Element, view: Size, pen: Any, rx: float | None, ry: float | None) -> None:
    if not rx or not ry:
        return
    x, y = length(element.get("cx"), view[0]), length(element.get("cy"), view[1])
    quarters = [(x + rx, y), (x, y + ry), (x - rx, y), (x, y - ry)]
    pen.moveTo(quarters[0])
    for start, end in zip(quarters, [*quarters[1:], quarters[0]], strict=True):
        _Arc(complex(*start), rx, ry, 0, False, True, complex(*end)).draw(pen)
    pen.closePath()


# name of the element -> what draws it, given the element, the size that percentages are of, and a pen
SHAPES: Mapping[str, Callable[[Element, Size, Any], None]] = {
    "path": _path,
    "line": _line,
    "polyline": _polyline,
    "polygon": _polygon,
    "rect": _rect,
    "circle": _circle,
    "ellipse": _ellipse,
}


def _floats(text: str) -> list[float]:
    numbers = [float(number) for number in NUMBERS.findall(text)]
    if not all(map(math.isfinite, numbers)):
        raise ValueError("a number is too large")
    return numbers
