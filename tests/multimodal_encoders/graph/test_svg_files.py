"""SVG drawings as graphs: points against analytic shapes, transformations against numpy, files that must not harm."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multimodal_encoders.graph.gnn import GNN, GraphProcessor
from multimodal_encoders.graph.svg_files import MAX_CURVE_POINTS, TOLERANCE, read_svg

from multimodal.core.errors import Unreadable

NUMBERS = st.floats(-50, 50, allow_nan=False).map(lambda x: round(x, 3))
SIZES = st.floats(0.5, 60).map(lambda x: round(x, 3))
ARC_ERROR = 3e-4  # of a quarter circle as a cubic curve, of its radius

# Drawn as icon sets do: a box that is not seen, an inherited stroke, minified paths, a shape used twice.
ENVELOPE = """<svg xmlns="http://www.w3.org/2000/svg" width="24" height="24" viewBox="0 0 24 24" fill="none"
  stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round">
  <title>mail</title><path stroke="none" d="M0 0h24v24H0z" fill="none"/>
  <rect x="3" y="5" width="18" height="14" rx="2"/><path d="M3 7l9 6l9-6"/></svg>"""
BELL = """<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">
<svg version="1.1" viewBox="0 0 24 24" xmlns="http://www.w3.org/2000/svg"><!-- bell -->
  <path d="M12 22c1.1 0 2-.9 2-2h-4c0 1.1.9 2 2 2zm6-6v-5c0-3.07-1.63-5.64-4.5-6.32V4c0-.83-.67-1.5-1.5-1.5s-1.5.67-1.5
  1.5v.68C7.64 5.36 6 7.92 6 11v5l-2 2v1h16v-1l-2-2z"/></svg>"""
DIAGRAM = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 200 100">
  <style>.box { fill: #eee }</style>
  <defs><g id="box"><rect class="box" width="50" height="30"/></g>
    <symbol id="eye" viewBox="0 0 10 10"><circle cx="5" cy="5" r="5"/></symbol></defs>
  <use href="#box" x="10" y="10"/><use xlink:href="#box" transform="translate(120 50)"/>
  <line x1="60" y1="25" x2="120" y2="65"/><use href="#eye" x="80" y="0" width="20" height="20"/>
  <text x="12" y="30">start</text><g display="none"><rect width="200" height="100"/></g></svg>"""


def drawing(body: str, view: str = "") -> dict[str, Any]:
    frame = f' viewBox="{view}"' if view else ""
    return read_svg(f'<svg xmlns="http://www.w3.org/2000/svg"{frame}>{body}</svg>'.encode())


def in_file(graph: dict[str, Any], view: tuple[float, float, float, float]) -> np.ndarray:
    """The points in the units of the file."""
    side = max(view[2:])
    middle = np.array([view[0] + view[2] / 2, view[1] + view[3] / 2])
    return (graph["x"][:, :2] - (0, 0.5)) * (1, -1) * side + middle


def next_points(graph: dict[str, Any]) -> dict[int, int]:
    forward = graph["edge_attr"][:, 2] == 1
    return {int(a): int(b) for a, b in graph["edge_index"][:, forward].T}


@settings(max_examples=60, deadline=None)
@given(x=NUMBERS, y=NUMBERS, rx=SIZES, ry=SIZES, circle=st.booleans())
def test_the_points_of_an_ellipse_lie_on_it_and_its_edges_near_it(
    x: float, y: float, rx: float, ry: float, circle: bool
) -> None:
    ry = rx if circle else ry
    name, radii = ("circle", f'r="{rx}"') if circle else ("ellipse", f'rx="{rx}" ry="{ry}"')
    view = (x - 70, y - 70, 140.0, 140.0)
    graph = drawing(f'<{name} cx="{x}" cy="{y}" {radii}/>', " ".join(map(str, view)))
    points = (in_file(graph, view) - (x, y)) / (rx, ry)
    radius = np.hypot(*points.T)
    rounding = 1e-4 / min(rx, ry) * 140
    assert np.abs(radius - 1).max() < ARC_ERROR + rounding
    following = next_points(graph)
    assert sorted(following) == sorted(following.values()) == list(range(len(points)))  # closed
    middles = (points + points[[following[n] for n in range(len(points))]]) / 2
    allowed = TOLERANCE * 140 / min(rx, ry)
    assert (1 - np.hypot(*middles.T)).max() < ARC_ERROR + rounding + allowed
    assert 4 <= len(points) <= 4 * MAX_CURVE_POINTS
    turned = np.unwrap(np.arctan2(points[:, 1], points[:, 0]))
    assert (np.diff(turned) > 0).all()  # once around, in order
    assert turned[-1] - turned[0] < 2 * np.pi


@settings(max_examples=60, deadline=None)
@given(x=NUMBERS, y=NUMBERS, width=SIZES, height=SIZES, share=st.floats(0, 0.5))
def test_the_points_of_a_rectangle_lie_on_its_sides_and_corners(
    x: float, y: float, width: float, height: float, share: float
) -> None:
    r = round(share * min(width, height), 3)
    graph = drawing(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{r}"/>')
    points = in_file(graph, (x, y, width, height)) - (x, y)
    r = min(r, width / 2, height / 2)
    # the distance to the rectangle that is smaller by r on every side: r everywhere on the outline
    outside = np.abs(points - (width / 2, height / 2)) - (width / 2 - r, height / 2 - r)
    distance = np.hypot(*np.maximum(outside, 0).T) + np.minimum(outside.max(1), 0)
    assert np.abs(distance - r).max() < ARC_ERROR * r + 1e-4 * max(width, height)
    if r == 0:
        assert len(points) == 4
    side = max(width, height)
    assert np.ptp(graph["x"][:, 0]) == pytest.approx(width / side, abs=1e-5)
    assert np.ptp(graph["x"][:, 1]) == pytest.approx(height / side, abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    control=st.lists(st.tuples(NUMBERS, NUMBERS), min_size=4, max_size=4, unique=True), degree=st.sampled_from([2, 3])
)
def test_the_points_of_a_curve_are_those_of_de_casteljau(control: list[tuple[float, float]], degree: int) -> None:
    control = control[: degree + 1]
    first, *others = (f"{x} {y}" for x, y in control)
    view = (-50.0, -50.0, 100.0, 100.0)
    graph = drawing(f'<path d="M{first} {"Q" if degree == 2 else "C"} {" ".join(others)}"/>', "-50 -50 100 100")
    points = in_file(graph, view)

    def at(t: float) -> np.ndarray:
        parts = [np.array(p) for p in control]
        while len(parts) > 1:
            parts = [(1 - t) * a + t * b for a, b in pairwise(parts)]
        return parts[0]

    curve = np.array([at(t) for t in np.linspace(0, 1, 2001)])
    nearest = np.linalg.norm(points[:, None] - curve[None], axis=2).min(1)
    assert nearest.max() < 0.1  # the curve is sampled
    expected = [0, *([1] * (len(points) - 1))]
    assert graph["x"][:, 3].tolist() == [1 - e for e in expected]
    # no part of the curve is further from the edges than the tolerance, where the number of points is not bounded
    if len(points) <= MAX_CURVE_POINTS:
        a, b = points[:-1], points[1:]
        along = b - a
        t = ((curve[:, None] - a) * along).sum(2) / np.maximum((along**2).sum(1), 1e-12)
        foot = a + np.clip(t, 0, 1)[..., None] * along
        assert np.linalg.norm(curve[:, None] - foot, axis=2).min(1).max() < TOLERANCE * 100 + 0.01


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_transformations_are_those_of_matrices(data: st.DataObject) -> None:
    number = st.floats(-3, 3, allow_nan=False).map(lambda x: round(x, 2))
    texts, whole = [], np.eye(3)
    for _ in range(data.draw(st.integers(1, 4))):
        name = data.draw(st.sampled_from(["translate", "scale", "rotate", "turn", "skewX", "skewY", "matrix"]))
        a, b, c = (data.draw(number) for _ in range(3))
        radians = np.radians(a * 20)
        rotation = np.array([[np.cos(radians), -np.sin(radians), 0], [np.sin(radians), np.cos(radians), 0], [0, 0, 1]])
        moved = np.array([[1, 0, b], [0, 1, c], [0, 0, 1]])
        text, matrix = {
            "translate": (f"translate({b},{c})", moved),
            "scale": (f"scale({a} {b})", np.diag([a, b, 1])),
            "rotate": (f"rotate({a * 20})", rotation),
            "turn": (f"rotate( {a * 20}, {b} {c} )", moved @ rotation @ np.linalg.inv(moved)),
            "skewX": (f"skewX({a * 20})", np.array([[1, np.tan(radians), 0], [0, 1, 0], [0, 0, 1]])),
            "skewY": (f"skewY({a * 20})", np.array([[1, 0, 0], [np.tan(radians), 1, 0], [0, 0, 1]])),
            "matrix": (f"matrix({a} {b} {c} {a} {b} {c})", np.array([[a, c, b], [b, a, c], [0, 0, 1]])),
        }[name]
        texts.append(text)
        whole = whole @ matrix
    corners = np.array([[0, 0, 1], [2, 0, 1], [2, 1, 1]]).T
    wanted = (whole @ corners)[:2].T
    if np.ptp(wanted, axis=0).max() < 1e-2 or np.linalg.norm(np.diff(wanted, axis=0), axis=1).min() < 1e-2:
        return
    half = len(texts) // 2
    outer, inner = " ".join(texts[:half]), ", ".join(texts[half:])
    graph = drawing(
        f'<g transform="{outer}"><polyline transform="{inner}" points="0,0 2,0 2,1"/></g>', "-500 -500 1000 1000"
    )
    low, high = np.minimum(wanted.min(0), -500), np.maximum(wanted.max(0), 500)
    found = in_file(graph, (*low, *(high - low)))
    np.testing.assert_allclose(found, wanted, atol=2e-3 * max(1, np.abs(wanted).max() / 100))


@settings(max_examples=40, deadline=None)
@given(scale=st.sampled_from([1e-3, 0.5, 7.0, 1e4]), x=NUMBERS, y=NUMBERS)
def test_neither_the_place_nor_the_size_of_a_drawing_counts(scale: float, x: float, y: float) -> None:
    body = '<path d="M1 1C4 2 3 5 6 4A2 3 30 1 0 9 1Z M2 2 L5 3"/><circle r="1.5"/>'
    moved = drawing(f'<g transform="translate({x} {y}) scale({scale})">{body}</g>')
    plain = drawing(body)
    np.testing.assert_allclose(moved["x"], plain["x"], atol=1e-4)
    assert np.array_equal(moved["edge_index"], plain["edge_index"])
    assert np.ptp(plain["x"][:, :2], axis=0).max() == pytest.approx(1, abs=5e-3)
    assert np.abs(plain["x"][:, :2] - (0, 0.5)).max() <= 0.5 + 1e-6


@pytest.mark.parametrize(
    ("body", "points"),
    [
        ('<line x1="0" y1="0" x2="10" y2="10"/>', [(0, 0), (10, 10)]),
        ('<line x2="100%" y2="50%"/>', [(0, 0), (10, 5)]),
        ('<polygon points="0,0 10,0 5,5"/>', [(0, 0), (10, 0), (5, 5)]),
        ('<polyline points="0 0 10 0 5 5 0 0"/>', [(0, 0), (10, 0), (5, 5)]),
        ('<path d="m1 1h8v8h-8z"/>', [(1, 1), (9, 1), (9, 9), (1, 9)]),
        ('<path d="M1,1L9,9zm2,2l1,0"/>', [(1, 1), (9, 9), (3, 3), (4, 3)]),
        ('<path d="M0 0A0 5 0 0 1 10 0"/>', [(0, 0), (10, 0)]),
        ('<rect x="1" y="2" width="3" height="4"/>', [(1, 2), (4, 2), (4, 6), (1, 6)]),
        ('<svg x="5" width="5" height="5" viewBox="0 0 2 1"><line x2="2" y2="1"/></svg>', [(5, 1.25), (10, 3.75)]),
        (
            '<svg width="5" height="10" viewBox="0 0 1 1" preserveAspectRatio="none"><line x2="1" y2="1"/></svg>',
            [(0, 0), (5, 10)],
        ),
        (
            '<svg width="5" height="10" viewBox="0 0 1 1" preserveAspectRatio="xMinYMax"><line x2="1" y2="1"/></svg>',
            [(0, 5), (5, 10)],
        ),
        ('<svg viewBox="0 0 5 5" width="1in" height="96px"><line x2="5"/></svg>', [(0, 0), (96, 0)]),
    ],
)  # fmt: skip
def test_small_shapes_have_the_points_that_are_read_off(body: str, points: list[tuple[float, float]]) -> None:
    graph = drawing(body, "0 0 10 10")
    side = max(10, np.max(points))
    np.testing.assert_allclose(in_file(graph, (0, 0, side, side if side == 10 else 10)), points, atol=1e-4)


def test_the_frame_keeps_its_proportions_and_y_points_up() -> None:
    graph = drawing('<line x1="2" y1="1" x2="4" y2="2"/>', "0 0 4 2")
    np.testing.assert_allclose(graph["x"], [[0, 0.5, 1, 1], [0.5, 0.25, 1, 0]])
    np.testing.assert_allclose(graph["edge_attr"], [[0.5, -0.25, 1], [-0.5, 0.25, -1]])
    sized = read_svg(b'<svg width="4cm" height="2cm"><line x1="2cm" y1="1cm" x2="4cm" y2="2cm"/></svg>')
    np.testing.assert_allclose(sized["x"], graph["x"], atol=1e-6)


@pytest.mark.parametrize(
    ("icon", "contours"), [(ENVELOPE, 2), (BELL, 2), (DIAGRAM, 4)], ids=["envelope", "bell", "diagram"]
)
def test_icons_and_diagrams_are_read_as_file_bytes_or_text(icon: str, contours: int, tmp_path: Path) -> None:
    (tmp_path / "icon.svg").write_text(icon)
    processor = GraphProcessor(4, 3)
    items = [processor(form) for form in (icon, icon.encode(), b"\xef\xbb\xbf" + icon.encode(), tmp_path / "icon.svg")]
    items.append(processor(str(tmp_path / "icon.svg")))
    for item in items:
        assert all(item[name].equal(items[0][name]) for name in item)
    x = items[0]["x"].numpy()
    assert int(x[:, 3].sum()) == contours
    assert (x[:, 2] == 1).all()
    assert np.abs(x[:, :2] - (0, 0.5)).max() <= 0.5
    encoder = GNN(width=8, layers=1)
    assert encoder(**encoder.processor.collate([encoder.processor(icon)])).shape == (1, 8)


def test_a_text_is_of_its_characters_whatever_it_declares() -> None:
    text = "<?xml version='1.0' encoding='UTF-16'?>" + DIAGRAM
    assert GraphProcessor(4, 3)(text)["x"].equal(GraphProcessor(4, 3)(DIAGRAM)["x"])


def test_what_is_used_is_drawn_where_it_is_used() -> None:
    x = in_file(read_svg(DIAGRAM.encode()), (0, 0, 200, 100))
    rectangles = [[10, 10], [60, 10], [60, 40], [10, 40], [120, 50], [170, 50], [170, 80], [120, 80]]
    np.testing.assert_allclose(x[:8], rectangles, atol=1e-3)
    np.testing.assert_allclose(x[8:10], [[60, 25], [120, 65]], atol=1e-3)
    np.testing.assert_allclose(np.hypot(*(x[10:] - (90, 10)).T), 10, atol=5e-3)


@pytest.mark.parametrize(
    "hidden",
    [
        '<rect width="9" height="9" fill="none"/>',
        '<g style="display: none"><rect width="9" height="9"/></g>',
        '<g fill="none"><rect width="9" height="9"/></g>',
        '<rect width="9" height="9" visibility="hidden"/>',
        '<defs><rect id="a" width="9" height="9"/></defs>',
        '<clipPath><rect width="9" height="9"/></clipPath>',
        '<use href="other.svg#a"/><use href="#missing"/>',
        '<rect width="0" height="9"/><circle r="0"/><path d=""/><path d="none"/><path d="M5 5"/>',
        '<image href="/etc/passwd" width="9" height="9"/><text>cup</text>',
    ],
)
def test_what_is_not_seen_is_left_out(hidden: str) -> None:
    seen = '<line x2="9" stroke="red" fill="none"/>'
    assert np.array_equal(drawing(hidden + seen, "0 0 9 9")["x"], drawing(seen, "0 0 9 9")["x"])
    with pytest.raises(Unreadable, match="draws no line"):
        drawing(hidden)


BOMB = """<!DOCTYPE svg [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]><svg><text>&b;</text></svg>"""
USE = '<use href="#a{}"/>'
USES = "<svg><g id='a0'><path d='M0 0h1'/></g>" + "".join(  # 10^9 lines
    f"<g id='a{n}'>" + USE.format(n - 1) * 10 + "</g>" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (BOMB, "declares entities"),
        ('<!DOCTYPE svg [<!ENTITY a SYSTEM "file:///etc/passwd">]><svg><text>&a;</text></svg>', "declares entities"),
        ('<!DOCTYPE svg [<!ENTITY % a SYSTEM "file:///etc/passwd">%a;]><svg/>', "declares entities"),
        (USES + "</svg>", "more than 50,000 elements"),
        ("<svg><g id='a'><use href='#a'/></g></svg>", "#a is used in itself"),
        ("<svg>" + "<g>" * 200 + "</g>" * 200 + "</svg>", "more than 100 inside one another"),
        ("<svg>" + "<g/>" * 60_000 + "</svg>", "more than 50,000 elements"),
        ("<svg><path d='M0 0" + "h1" * 60_000 + "'/></svg>", "more than 50,000 points"),
        ("<svg><path d='" + "M0 0" * 60_000 + "'/></svg>", "more than 50,000 points"),
        ("<svg><path d='M0 0" + "C1 2 3 4 5 60" * 20_000 + "'/></svg>", "more than 50,000 points"),
        ("<svg><path d='M0 0A" + ".1" * 1_000_000 + "'/></svg>", "too many numbers"),
        ("<svg><g id='a'><path d='" + " " * 2**20 + "'/></g>" + "<use href='#a'/>" * 1000 + "</svg>", "too long ones"),
        ("<svg>" + " " * (9 * 2**20) + "</svg>", "larger than the 8 MiB"),
        ("<svg><path d='M0 0L1e400 0'/></svg>", "not SVG that can be read"),
        ("<svg><path d='M0 0L5'/></svg>", "not SVG that can be read"),
        ("<svg><path d='L5 5'/></svg>", "not SVG that can be read"),
        ("<svg><path d='M0 0A1 1'/></svg>", "not SVG that can be read"),
        ("<svg><path d='M0 0A1 1 0 2 3 4 5'/></svg>", "not SVG that can be read"),
        ("<svg><circle r='wide'/></svg>", "'wide' is not a length"),
        ("<svg><circle r='" + "1" * 300 + "x'/></svg>", "is not a length|is too large"),
        ("<svg><g transform='spin(3)'/></svg>", "spin of 1 numbers is not a transformation"),
        ("<svg><g transform='scale(1) )'/></svg>", "is not a transformation"),
        ("<svg><g transform='" + "a" * 10**6 + "'/></svg>", "is not a transformation"),
        ("<svg><g transform='" + " " * 10**6 + "'/></svg>", "draws no line"),
        ("<svg><rect width='1' height='1'", "not SVG that can be read"),
        ("<svg/>", "draws no line"),
    ],
    ids=map(str, range(26)),
)
def test_what_harms_or_says_nothing_is_refused_quickly(content: str, said: str) -> None:
    start = time.perf_counter()
    with pytest.raises(Unreadable, match=said):
        GraphProcessor(4, 3)(content)
    assert time.perf_counter() - start < 20  # seconds; most take milliseconds


def test_a_file_named_so_is_svg_or_refused(tmp_path: Path) -> None:
    (tmp_path / "a.svg").write_text("<graphml/>")
    with pytest.raises(Unreadable, match="its root is 'graphml'"):
        GraphProcessor(4, 3)(tmp_path / "a.svg")
    with pytest.raises(Unreadable, match=r"does not exist|No such file"):
        GraphProcessor(4, 3)(tmp_path / "b.svg")


def test_an_encoding_that_does_not_exist_is_refused() -> None:
    icon = b'<?xml version="1.0" encoding="U0TF-8"?><svg viewBox="0 0 1 1"><path d="M0 0h1v1"/></svg>'
    with pytest.raises(Unreadable, match=r"not SVG that can be read \(unknown encoding"):
        read_svg(icon)
    with pytest.raises(Unreadable):
        GraphProcessor(4, 3)(icon)


@settings(max_examples=300, deadline=None)
@given(
    icon=st.sampled_from([ENVELOPE, BELL, DIAGRAM]),
    edits=st.lists(
        st.tuples(st.integers(0, 10**6), st.text("0.-eEMmAaZzCcSsQqTt <>\"'/%()#&;x", max_size=4)), max_size=6
    ),
)
def test_a_changed_file_is_read_or_refused(icon: str, edits: list[tuple[int, str]]) -> None:
    for where, text in edits:
        where %= len(icon)
        icon = icon[:where] + text + icon[where + len(text) // 2 :]
    try:
        graph = read_svg(icon.encode())
    except Unreadable:
        return
    assert np.abs(graph["x"][:, :2] - (0, 0.5)).max() <= 0.5 + 1e-6
    assert graph["edge_index"].max() < len(graph["x"])
