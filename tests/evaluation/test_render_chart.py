"""The chart shows the recalls."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from made_up_measures import measures
from PIL import Image, ImageColor

from multimodal.evaluation.render import BAR_COLORS, save_chart
from multimodal.evaluation.retrieval import Retrieval

COLORS = {name: ImageColor.getrgb(color) for name, color in BAR_COLORS.items()}
WHITE = (255, 255, 255)


def result(*recalls: float) -> Retrieval:
    return measures(*recalls, mrr=0.3, median_rank=7.5, mean_rank=12.25, queries=1234, pool=56789)


RESULTS = {
    "text->image": result(1.0, 1.0, 1.0),
    "image->text": result(0.25, 0.5, 0.75),
    "text->graph": result(0.1, 0.1, 0.9),
    "graph->text": result(0.6, 0.7, 0.7),
}


def drawn(results: dict[str, Retrieval], path: Path, title: str = "A title") -> np.ndarray:
    """Return the chart as ``(height, width, 3)`` uint8."""
    save_chart(results, title, path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def inked(picture: np.ndarray) -> np.ndarray:
    """Return where the picture has the color of a bar."""
    return np.any([(picture == color).all(axis=2) for color in COLORS.values()], axis=0)


def runs(marks: np.ndarray) -> list[tuple[int, int]]:
    """Return the start and end of each run of true values in a line."""
    edges = np.flatnonzero(np.diff([0, *marks.astype(int), 0]))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def axis_of(picture: np.ndarray) -> tuple[int, int]:
    """Return the columns at which the axis of the recalls, the longest black line, starts and ends."""
    black = (picture == 0).all(axis=2)
    return max((run for line in black for run in runs(line)), key=lambda run: run[1] - run[0])


def test_the_chart_is_a_picture_of_a_sensible_size(tmp_path: Path) -> None:
    pictures = [drawn(dict(list(RESULTS.items())[:n]), tmp_path / "chart.png") for n in (1, 2, 4)]
    assert {picture.shape[1] for picture in pictures} == {700}
    heights = [picture.shape[0] for picture in pictures]
    assert heights == sorted(set(heights))  # one line more for each direction
    assert (heights[0] >= 100, heights[-1] <= 400) == (True, True)
    assert [path.name for path in tmp_path.iterdir()] == ["chart.png"]


def test_a_bar_has_the_color_of_the_first_recall_that_reaches_there(tmp_path: Path) -> None:
    picture = drawn(RESULTS, tmp_path / "chart.png")
    left, right = axis_of(picture)
    assert 0.5 * picture.shape[1] < right - left < picture.shape[1]
    bars = runs(inked(picture)[:, left + 2])
    assert len(bars) == len(RESULTS)
    for (top, bottom), r in zip(bars, RESULTS.values(), strict=True):  # the first direction is the uppermost
        assert bottom - top > 12
        for y in (top + 3, bottom - 4):  # above and below the number
            for x in range(left + 2, right - 2):
                reached = (x + 0.5 - left) / (right - left)
                recalls = (r.recall_at_1, r.recall_at_5, r.recall_at_10)
                if min(abs(reached - recall) for recall in recalls) * (right - left) > 2:  # edges are blended
                    names = (name for name in reversed(BAR_COLORS) if reached < getattr(r, name))
                    color = COLORS[name] if (name := next(names, None)) else WHITE
                    assert tuple(picture[y, x].tolist()) == color, (r, reached)


def test_every_color_is_in_the_legend(tmp_path: Path) -> None:
    picture = drawn(RESULTS, tmp_path / "chart.png")
    legend = picture[:, axis_of(picture)[1] + 3 :]
    for color in COLORS.values():
        assert (legend == color).all(axis=2).sum() > 50


def test_another_recall_of_the_first_answer_is_another_number(tmp_path: Path) -> None:
    """The number is written into the bar."""
    left, right = axis_of(drawn(RESULTS, tmp_path / "chart.png"))
    numbers = []
    for recall in (0.91, 0.92):
        picture = drawn({"a->b": result(recall, 0.95, 1.0)}, tmp_path / "chart.png")
        ((top, bottom),) = runs(inked(picture)[:, left + 2])
        numbers.append(picture[top:bottom, left + 4 : left + int(0.9 * (right - left))])
    assert not np.array_equal(*numbers)


def test_the_number_of_a_short_bar_can_be_read(tmp_path: Path) -> None:
    def line(recall: float) -> np.ndarray:
        """Return the area next to the second bar, which has length zero."""
        picture = drawn({"a->b": result(1.0, 1.0, 1.0), "b->a": result(recall, 0, 0)}, tmp_path / "chart.png")
        left, right = axis_of(picture)
        ((top, bottom),) = runs(inked(picture)[:, left + 2])
        return picture[bottom + 3 : 2 * bottom - top, left + 4 : right]

    assert (line(0.0) != 255).any()


def test_a_long_title_is_not_cut(tmp_path: Path) -> None:
    title = "Retrieval in 'unseen_characters' (/home/somebody/projects/of/last/year/runs/glyphs_full_of_november)"
    picture = drawn(RESULTS, tmp_path / "chart.png", title)
    assert (picture[:, [0, -1]] == 255).all()
