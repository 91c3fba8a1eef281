"""SVG drawings as graphs: the elements of a file -> strokes -> points, joined along the strokes.

1. ``_Drawing`` walks the visible shapes, with their transformations, and lets fontTools read their path data.
2. ``_Strokes`` collects the straight and curved segments, in the units of the file.
3. Curves become points, and the drawing's frame becomes the unit square.

The nodes and edges have the features of the outlines of ``glyphs``, see ``media.outline``. Texts, pictures, clipping, style
sheets and what other files hold are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np
from fontTools.misc.bezierTools import calcCubicBounds, calcQuadraticBounds

from multimodal.core.errors import Unreadable
from multimodal.media.outline import ENDS_OPEN, ON_CURVE, STARTS, contour_graph
from multimodal_encoders.graph.svg_shapes import SHAPES, Box, length, read_transform, view_transform

MAX_BYTES = 8 * 2**20
MAX_ELEMENTS = 50_000  # in the file, and drawn, where one is used several times
MAX_CHARACTERS = 2 * MAX_BYTES  # of the attributes of the elements that are drawn
MAX_DEPTH = 100
MAX_POINTS = 50_000
MAX_CURVE_POINTS = 16  # of one curved segment
TOLERANCE = 0.005  # how far the edges may be from the curve, if that takes no more points; the frame is 1
SAME_POINT = 1e-6
CONTAINERS = ("svg", "g", "a", "switch")
INHERITED = ("fill", "stroke", "visibility")  # what decides whether a shape is seen
HREFS = ("href", "{http://www.w3.org/1999/xlink}href")


def is_svg(content: bytes) -> bool:
    """Whether XML has the root element ``svg``; what is not XML has not.

    Examples:
        >>> is_svg(b"<!-- an icon --><svg viewBox='0 0 1 1'/>"), is_svg(b"<graphml/>"), is_svg(b"{}")
        (True, False, False)
    """
    names: list[str] = []
    parser = expat.ParserCreate(namespace_separator="}")
    parser.StartElementHandler = lambda name, _: names.append(name)
    try:
        for start in range(0, len(content), 4096):
            parser.Parse(content[start : start + 4096])
            if names:
                break
    except (expat.ExpatError, LookupError):  # the latter for an encoding that does not exist
        pass
    return bool(names) and _local(names[0]) == "svg"


def read_svg(content: bytes, what: str = "the drawing") -> dict[str, np.ndarray]:
    """Read a drawing as a graph.

    The frame is the ``viewBox``, or else ``width`` and ``height``, enlarged by what is drawn outside it; without both, what is
    drawn. Its longer side becomes 1; its middle is x = 0, y = 0.5, and y points upwards.

    Args:
        content: the file.
        what: the drawing's name in errors.

    Returns:
        See ``media.outline.contour_graph``; all points are on the curve.

    Raises:
        Unreadable: it is too large, malformed, or draws nothing.

    Examples:
        >>> graph = read_svg(b"<svg viewBox='0 0 2 1'><line x2='2' y2='1'/></svg>")
        >>> graph["x"][:, :2].tolist(), graph["edge_attr"].tolist()
        ([[-0.5, 0.75], [0.5, 0.25]], [[1.0, -0.5, 1.0], [-1.0, 0.5, -1.0]])
    """
    if len(content) > MAX_BYTES:
        raise Unreadable("file too large", f"{what} is larger than the {MAX_BYTES >> 20} MiB of a drawing.")
    try:
        root = _parse(content, what)
        drawing = _Drawing(root)
        contours = drawing.draw()
        box = _union([drawing.frame, *(_curve_bounds(part) for contour in contours for part in contour.segments)])
        points, flags = _flatten(contours, box)
    except (expat.ExpatError, LookupError, SyntaxError, ValueError, ArithmeticError) as error:
        raise Unreadable("not SVG", f"{what} is not SVG that can be read ({error}).") from error
    if not len(points):
        raise Unreadable("empty drawing", f"{what} draws no line; texts, pictures and style sheets are not read.")
    return contour_graph(points, flags)


def _parse(content: bytes, what: str) -> ElementTree.Element:
    """Parse XML without entities, which can grow without bound, and of a bounded size and depth."""
    elements = depth = 0

    def refuse(*_: Any) -> None:
        raise Unreadable("not SVG", f"{what} declares entities, which are not read; save it as plain SVG.")

    def enter(*_: Any) -> None:
        nonlocal elements, depth
        elements, depth = elements + 1, depth + 1
        if elements > MAX_ELEMENTS or depth > MAX_DEPTH:
            raise _too_much(f"elements, or more than {MAX_DEPTH} inside one another", MAX_ELEMENTS)

    def leave(*_: Any) -> None:
        nonlocal depth
        depth -= 1

    parser = expat.ParserCreate()
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = enter, leave
    parser.Parse(content, True)
    return ElementTree.fromstring(content)


@dataclass
class _Contour:
    """A stroke: its segments, each of 2 (line), 3 or 4 control points (Bezier curves), and whether it is closed."""

    segments: list[np.ndarray]
    closed: bool = False


class _Strokes:
    """A pen of fontTools that collects contours.

    Args:
        matrix: (a, b, c, d, e, f) of SVG, from the pen's coordinates to those of the drawing.
        contours: where they are added to.
        counter: the numbers of elements and segments so far.
    """

    def __init__(self, matrix: Any, contours: list[_Contour], counter: _Counter) -> None:
        self._matrix, self._contours, self._counter = matrix, contours, counter
        self._last: tuple[float, float] = (0.0, 0.0)

    def moveTo(self, point: tuple[float, float]) -> None:  # noqa: N802 (the protocol of fontTools)
        self._counter.add_segment()
        self._contours.append(_Contour([]))
        self._last = point

    def lineTo(self, point: tuple[float, float]) -> None:  # noqa: N802
        self._add(point)

    def curveTo(self, *points: tuple[float, float]) -> None:  # noqa: N802
        self._add(*points)

    def qCurveTo(self, *points: tuple[float, float]) -> None:  # noqa: N802
        self._add(*points)

    def closePath(self) -> None:  # noqa: N802
        self._contours[-1].closed = True

    def endPath(self) -> None:  # noqa: N802
        pass

    def _add(self, *points: tuple[float, float]) -> None:
        self._counter.add_segment()
        segment = np.array(self._matrix.transformPoints([self._last, *points]), dtype=np.float64)
        if not np.isfinite(segment).all():
            raise ValueError("a coordinate is too large")
        self._contours[-1].segments.append(segment)
        self._last = points[-1]


@dataclass
class _Counter:
    """Bounds the work, as ``use`` can draw a small file many times."""

    elements: int = 0
    segments: int = 0
    characters: int = 0

    def add_element(self, element: ElementTree.Element, depth: int) -> None:
        self.elements += 1
        self.characters += sum(map(len, element.attrib.values()))
        if self.elements > MAX_ELEMENTS or depth > MAX_DEPTH or self.characters > MAX_CHARACTERS:
            raise _too_much(f"elements, more than {MAX_DEPTH} inside one another, or too long ones", MAX_ELEMENTS)

    def add_segment(self) -> None:
        self.segments += 1
        if self.segments > MAX_POINTS:
            raise _too_much("points", MAX_POINTS)


@dataclass(frozen=True)
class _Context:
    """What an element inherits.

    Attributes:
        matrix: from its coordinates to those of the drawing.
        view: the size that percentages are of.
        seen: the properties that decide whether a shape is seen.
        used: the ids of the elements around it that ``use`` stands for.
        depth: the number of elements around it.
    """

    matrix: Any
    view: tuple[float, float]
    seen: Mapping[str, str] = field(
        default_factory=lambda: {"fill": "black", "stroke": "none", "visibility": "visible"}
    )
    used: tuple[str, ...] = ()
    depth: int = 0

    @property
    def is_visible(self) -> bool:
        painted = self.seen["fill"] != "none" or self.seen["stroke"] != "none"
        return painted and self.seen["visibility"] not in ("hidden", "collapse")


class _Drawing:
    """The visible shapes of a file."""

    def __init__(self, root: ElementTree.Element) -> None:
        self.root = root
        self._by_id = {e.get("id"): e for e in root.iter() if e.get("id")}
        self._counter = _Counter()
        self._contours: list[_Contour] = []
        view = Box.of(root.get("viewBox"))
        width, height = (length(root.get(side), 0.0) for side in ("width", "height"))
        if view is None and width > 0 and height > 0:
            view = Box(0, 0, width, height)
        self._view = view
        self.frame = None if view is None else np.array([[view.x, view.y], [view.x + view.width, view.y + view.height]])

    def draw(self) -> list[_Contour]:
        """Collect the contours, in the coordinates of the file's ``viewBox``."""
        if _local(self.root.tag) != "svg":
            raise ValueError(f"its root is {_local(self.root.tag)!r}")
        size = (100.0, 100.0) if self._view is None else (self._view.width, self._view.height)
        context = _inherit(_Context(read_transform(""), size), self.root)
        if context is not None:
            self._draw_children(self.root, context)
        return self._contours

    def _draw_children(self, element: ElementTree.Element, context: _Context) -> None:
        for child in element:
            self._draw(child, replace(context, depth=context.depth + 1))

    def _draw(self, element: ElementTree.Element, outer: _Context) -> None:
        self._counter.add_element(element, outer.depth)
        name = _local(element.tag)
        context = _inherit(outer, element)
        if context is None:
            return
        if name in SHAPES:
            if context.is_visible:
                SHAPES[name](element, context.view, _Strokes(context.matrix, self._contours, self._counter))
        elif name == "use":
            self._draw_used(element, context)
        elif name in CONTAINERS:
            if name == "svg":
                context = _viewport(element, context, element)
            self._draw_children(element, context)

    def _draw_used(self, use: ElementTree.Element, context: _Context) -> None:
        href = next((use.get(name, "") for name in HREFS if use.get(name)), "").strip()
        target = self._by_id.get(href[1:]) if href.startswith("#") else None
        if target is None:  # in another file, or nowhere
            return
        if href in context.used:
            raise ValueError(f"{href} is used in itself")
        width, height = context.view
        matrix = context.matrix.translate(length(use.get("x"), width), length(use.get("y"), height))
        context = replace(context, matrix=matrix, used=(*context.used, href), depth=context.depth + 1)
        if _local(target.tag) == "symbol":
            inner = _inherit(context, target)
            if inner is not None:
                self._draw_children(target, _viewport(target, inner, use))
        else:
            self._draw(target, context)


def _inherit(context: _Context, element: ElementTree.Element) -> _Context | None:
    """Return the context inside an element; None if it is not displayed."""
    style = dict(part.split(":", 1) for part in element.get("style", "").split(";") if ":" in part)
    style = {name.strip(): value.strip() for name, value in style.items()}
    if style.get("display", element.get("display")) == "none":
        return None
    own = {name: style.get(name, element.get(name)) for name in INHERITED}
    seen = {**context.seen, **{name: value for name, value in own.items() if value and value != "inherit"}}
    matrix = context.matrix.transform(read_transform(element.get("transform", "")))
    return replace(context, matrix=matrix, seen=seen)


def _viewport(element: ElementTree.Element, context: _Context, sized: ElementTree.Element) -> _Context:
    """Return the context inside an ``svg`` or ``symbol`` within the drawing, whose size is that of ``sized``."""
    width, height = context.view
    x, y = (length(element.get(name), side) for name, side in (("x", width), ("y", height)))
    size = (
        length(sized.get("width") or element.get("width") or "100%", width),
        length(sized.get("height") or element.get("height") or "100%", height),
    )
    matrix, view = context.matrix.translate(x, y), Box.of(element.get("viewBox"))
    if view is None:
        return replace(context, matrix=matrix, view=size)
    matrix = matrix.transform(view_transform(view, size, element.get("preserveAspectRatio", "")))
    return replace(context, matrix=matrix, view=(view.width, view.height))


def _flatten(contours: list[_Contour], box: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the points ``(p, 2)`` float32 of all contours in the unit square, and their flags ``(p,)``."""
    points: list[np.ndarray] = []
    flags: list[np.ndarray] = []
    if box is None:
        return np.zeros((0, 2), np.float32), np.zeros(0, np.uint8)
    side = float(np.max(box[1] - box[0])) or 1.0
    middle = box.mean(0)
    count = 0
    for contour in contours:
        line = [np.zeros((0, 2))]
        for segment in contour.segments:
            scaled = ((segment - middle) / side) * (1, -1) + (0, 0.5)
            line += [scaled[:1]] * (len(line) == 1)
            line.append(_curve_points(scaled))
            count += len(line[-1])
            if count > MAX_POINTS:
                raise _too_much("points", MAX_POINTS)
        along = np.concatenate(line)
        along = along[_is_new(along)]
        closed = contour.closed or (len(along) > 2 and _near(along[0], along[-1]))
        if closed and len(along) > 1 and _near(along[0], along[-1]):
            along = along[:-1]
        if len(along) < 2:
            continue
        flag = np.full(len(along), ON_CURVE, np.uint8)
        flag[0] |= STARTS
        flag[-1] |= 0 if closed else ENDS_OPEN
        points.append(along)
        flags.append(flag)
    if not points:
        return np.zeros((0, 2), np.float32), np.zeros(0, np.uint8)
    return np.concatenate(points).astype(np.float32), np.concatenate(flags)


def _curve_points(control: np.ndarray) -> np.ndarray:
    """Return points of a Bezier curve ``(degree + 1, 2)`` after its first, with its last, as many as Wang's formula wants.

    Source: Wang 1984: n edges are within ``degree (degree - 1) / 8 max |second difference| / n^2`` of the curve.
    """
    degree = len(control) - 1
    if degree == 1:
        return control[1:]
    bend = float(np.linalg.norm(np.diff(control, 2, axis=0), axis=1).max())
    wanted = math.sqrt(degree * (degree - 1) / 8 * bend / TOLERANCE)
    t = np.linspace(0, 1, max(1, min(MAX_CURVE_POINTS, math.ceil(wanted))) + 1)[1:, None]
    curve = sum(math.comb(degree, k) * t**k * (1 - t) ** (degree - k) * control[k] for k in range(degree + 1))
    return np.asarray(curve)


def _is_new(points: np.ndarray) -> np.ndarray:
    """Return which points are not those before them, ``(p,)`` bool."""
    new = np.ones(len(points), dtype=bool)
    new[1:] = (np.abs(np.diff(points, axis=0)) > SAME_POINT).any(1)
    return new


def _near(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((np.abs(a - b) <= SAME_POINT).all())


def _curve_bounds(control: np.ndarray) -> np.ndarray:
    """Return the smallest and largest x and y ``(2, 2)`` of a segment."""
    if len(control) == 2:
        return _bounds(control)
    bounds = calcCubicBounds(*control) if len(control) == 4 else calcQuadraticBounds(*control)
    return np.reshape(bounds, (2, 2))


def _bounds(points: np.ndarray) -> np.ndarray:
    return np.stack([points.min(0), points.max(0)])


def _union(boxes: list[np.ndarray | None]) -> np.ndarray | None:
    known = [box for box in boxes if box is not None]
    return _bounds(np.concatenate(known)) if known else None


def _local(tag: Any) -> str:
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""  # a comment's tag is a function


def _too_much(what: str, limit: int) -> Unreadable:
    return Unreadable("drawing too large", f"the drawing has more than {limit:,} {what}.")
