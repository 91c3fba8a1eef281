"""Outlines that are drawn again are outlines of nearly the same shape."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.core.errors import Unreadable
from multimodal.media.outline import ENDS_OPEN, ON_CURVE, STARTS, contour_graph, is_outline
from multimodal.prepare.cleaning import File
from multimodal.prepare.synthesize.outlines import (
    MAX_DEGREES,
    OutlineVariants,
    add_points,
    cell_of,
    contours,
    move,
    normalized_graph,
    read_outline,
    start_elsewhere,
)


@st.composite
def outlines(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Return points and flags of one to three contours, closed or open, with control points."""
    points, flags = [], []
    for _ in range(draw(st.integers(1, 3))):
        count = draw(st.integers(1, 8))
        seed = draw(st.integers(0, 1000))
        rng = np.random.default_rng(seed)
        kinds = (rng.random(count) < 0.6).astype(np.uint8) * ON_CURVE
        kinds[0] = ON_CURVE | STARTS
        if count > 1 and rng.random() < 0.4:
            kinds[-1] |= ENDS_OPEN
        points.append(rng.normal(size=(count, 2)).round(4))
        flags.append(kinds)
    return np.concatenate(points), np.concatenate(flags)


def curve(points: np.ndarray, flags: np.ndarray, steps: int = 16) -> np.ndarray:
    """Sample a contour as TrueType draws it: quadratic curves, points on the curve implied half-way between controls."""
    places: list[np.ndarray] = []
    kinds: list[bool] = []
    is_open = bool(flags[-1] & ENDS_OPEN)
    for n in range(len(points)):
        places.append(points[n])
        kinds.append(bool(flags[n] & ON_CURVE))
        following = (n + 1) % len(points)
        if not (is_open and following == 0) and not kinds[-1] and not flags[following] & ON_CURVE:
            places.append((points[n] + points[following]) / 2)
            kinds.append(True)
    if not is_open:
        places.append(places[0])
        kinds.append(True)
    drawn, n = [places[0]], 1
    t = np.linspace(0, 1, steps)[1:, None]
    while n < len(places):
        start = drawn[-1]
        if kinds[n]:
            drawn += list(start + t * (places[n] - start))
            n += 1
        elif n + 1 < len(places):
            drawn += list((1 - t) ** 2 * start + 2 * t * (1 - t) * places[n] + t**2 * places[n + 1])
            n += 2
        else:
            break
    return np.array(drawn)


def hausdorff(a: np.ndarray, b: np.ndarray) -> float:
    distances = np.linalg.norm(a[:, None] - b[None], axis=2)
    return float(max(distances.min(axis=1).max(), distances.min(axis=0).max()))


@given(outlines())
@settings(max_examples=60, deadline=None)
def test_an_outline_is_read_back_from_its_graph(outline: tuple[np.ndarray, np.ndarray]) -> None:
    points, flags = outline
    read = read_outline(cell_of(contour_graph(points, flags)))
    assert read is not None
    assert read[0] == pytest.approx(points, abs=1e-4)
    assert read[1].tolist() == flags.tolist()


@given(outlines(), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_added_points_and_another_start_change_no_shape(outline: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    points, flags = outline
    rng = np.random.default_rng(seed)
    new_points, new_flags = add_points(*start_elsewhere(points, flags, rng), rng)
    old, new = contours(flags), contours(new_flags)
    assert len(old) == len(new)
    for one, other in zip(old, new, strict=True):
        assert hausdorff(curve(points[one], flags[one], 60), curve(new_points[other], new_flags[other], 60)) < 0.15
        assert {tuple(p) for p in points[one]} <= {tuple(p) for p in new_points[other]}
        assert bool(flags[one][-1] & ENDS_OPEN) == bool(new_flags[other][-1] & ENDS_OPEN)


@given(outlines(), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_a_variant_is_an_outline_close_to_the_original(outline: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    points, flags = outline
    (made,) = OutlineVariants("o").make({"o": cell_of(contour_graph(points, flags))}, np.random.default_rng(seed))
    x = np.array(made.value["x"])
    assert is_outline(x)
    size = max(np.ptp(points, axis=0).max(), 1e-3)
    assert np.abs(x[:, :2].mean(axis=0)).max() <= np.abs(points).max() * 1.5 + size
    assert np.ptp(x[:, :2], axis=0).max() <= 1.8 * size + 0.01
    rebuilt = contour_graph(x[:, :2].astype(np.float32), read_outline(made.value)[1])  # type: ignore[index]
    assert np.array_equal(rebuilt["edge_index"], np.array(made.value["edge_index"]))
    assert np.array(made.value["edge_attr"]).reshape(-1, 3) == pytest.approx(rebuilt["edge_attr"], abs=2e-4)


def test_a_turn_is_bounded_and_reported() -> None:
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=np.float64)
    turns = [move(square, np.random.default_rng(seed))[1] for seed in range(50)]
    assert max(map(abs, turns)) <= MAX_DEGREES
    assert np.std(turns) > 2


@pytest.mark.parametrize(
    "cell",
    [
        "C:O",
        {"x": [[1.0, 2.0]], "edge_index": [[], []]},
        {"x": [[1.0, 2.0, 0.5, 1.0]], "edge_index": [[], []]},
        {"x": [], "edge_index": [[], []]},
        {"x": [[1, 2, 1, 1], [1]], "edge_index": [[], []]},
        {"x": [[float("nan"), 2, 1, 1]], "edge_index": [[], []]},
        {"nodes": [], "links": []},
        File(b"<svg/>", "a.svg"),
        None,
        3,
    ],
)
def test_other_graphs_are_left_alone(cell: Any) -> None:
    assert OutlineVariants("o").make({"o": cell} if cell is not None else {}, np.random.default_rng(0)) == []


def test_numbers_of_graphs_are_brought_into_one_form() -> None:
    whole = {"x": [[1, 2]], "edge_index": [[0], [0]], "edge_attr": None, "y": 3}
    found = normalized_graph(whole)
    assert found == whole
    assert isinstance(found["x"][0][0], float)
    for cell in ("C:O", None, {"x": [[1], [1, 2]], "edge_index": []}, {"nodes": []}):
        assert normalized_graph(cell) is cell


def test_json_files_are_drawn_again_as_json_files() -> None:
    corner = contour_graph(np.array([[0, 0], [1, 0], [1, 1]], np.float32), np.array([3, 1, 1], np.uint8))
    cell = File(json.dumps(cell_of(corner)).encode(), "icons/corner.json")
    made = OutlineVariants("o", count=2).make({"o": cell}, np.random.default_rng(0))
    assert [one.value.name for one in made] == ["corner-made-1.json", "corner-made-2.json"]
    assert is_outline(np.array(json.loads(made[1].value.data)["x"]))
    with pytest.raises(Unreadable, match="not JSON"):
        OutlineVariants("o").make({"o": File(b"{", "x.json")}, np.random.default_rng(0))
