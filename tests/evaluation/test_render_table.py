"""The printed table shows the measures."""

from __future__ import annotations

from io import StringIO

from made_up_measures import measures
from rich.console import Console

from multimodal.evaluation.render import retrieval_grid

RESULTS = {
    "text->image": measures(0.1234, 0.5, 1.0, mrr=0.34567, median_rank=7.5, mean_rank=12.25, queries=1234, pool=56789),
    "image->text": measures(0.0, 0.001, 0.9999, mrr=1.0, median_rank=1.0, mean_rank=1.0, queries=3, pool=4),
}


def printed(width: int) -> list[str]:
    out = StringIO()
    Console(file=out, width=width).print(retrieval_grid(RESULTS, "A title").table())
    return out.getvalue().splitlines()


def test_each_direction_is_a_line_of_its_measures_under_their_names() -> None:
    title, *lines = [line.split() for line in printed(width=120)]
    assert title == ["A", "title"]
    assert ["query", "->", "found", "R@1", "R@5", "R@10", "MRR", "median", "mean", "queries", "pool"] in lines
    assert ["text", "->", "image", "12.3", "50.0", "100.0", "0.346", "7.5", "12.2", "1,234", "56,789"] in lines
    assert ["image", "->", "text", "0.0", "0.1", "100.0", "1.000", "1", "1.0", "3", "4"] in lines


def test_no_number_is_cut_in_80_columns() -> None:
    assert [line.split() for line in printed(width=80)] == [line.split() for line in printed(width=120)]
