"""Charts of lines: points are where their numbers are, and what cannot be drawn is left out."""

from __future__ import annotations

import re
from math import inf, nan

from html_pages import EVIL, Page

from multimodal.evaluation.figure import line_chart


def path_of(chart: str) -> list[list[float]]:
    (path,) = re.findall(r' d="M([^"]+)"', chart)
    return [[float(number) for number in point.split()] for point in path.split("L")]


def test_points_lie_at_their_share_of_the_axes() -> None:
    chart = line_chart({"a": [(0, 0.0), (5, 0.25), (10, 1.0)]}, "step", y_range=(0, 1))
    (x0, y0), (x1, y1), (x2, y2) = path_of(chart)
    assert abs((x1 - x0) / (x2 - x0) - 0.5) < 0.001
    assert abs((y0 - y1) / (y0 - y2) - 0.25) < 0.001
    assert y2 < y0  # upwards


def test_doubling_steps_are_of_one_width() -> None:
    chart = line_chart({"a": [(8, 0.0), (16, 0.5), (32, 1.0)]}, "bytes", doubling=True)
    (x0, _), (x1, _), (x2, _) = path_of(chart)
    assert abs((x1 - x0) - (x2 - x1)) < 0.2
    assert {">8<", ">16<", ">32<"} <= set(re.findall(r">\d+<", chart))


def test_points_that_are_not_finite_are_left_out() -> None:
    assert len(path_of(line_chart({"a": [(0, 1.0), (1, nan), (2, inf), (3, 2.0)]}, "x"))) == 2
    assert "no values" in line_chart({"a": [(0, nan)]}, "x")
    assert "no values" in line_chart({}, "x")


def test_equal_values_and_a_single_point_are_drawn() -> None:
    for points in ([(0, 3.0), (1, 3.0)], [(7, 3.0)]):
        assert all(0 <= number <= 420 for point in path_of(line_chart({"a": points}, "x")) for number in point)


def test_names_are_escaped() -> None:
    page = Page(line_chart({EVIL: [(0, 1.0), (1, 2.0)]}, EVIL))
    assert page.tags <= {"svg", "line", "text", "path", "circle", "p", "span", "i"}
