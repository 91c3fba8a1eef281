"""Duplicates are left out, rows that must be in one split are linked, and labels link nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.prepare.columns import Column
from multimodal.prepare.distinct_values import MISSING, ContentValues
from multimodal.prepare.duplicates import common_limit, find_duplicates, find_links
from multimodal.prepare.splitting import components

Near = list[dict[int, list[int]]]


def reference(rows: list[tuple[int, ...]], near: Near) -> tuple[list[int], list[bool]]:
    """Compare every row with every earlier row that is kept."""
    of, nearly = [], []
    for row, values in enumerate(rows):
        exact = next((r for r in range(row) if rows[r] == values), None)
        close = next(
            (
                r
                for r in range(row)
                if of[r] == r
                and all(
                    a == b or (MISSING not in (a, b) and b in near[c].get(a, ()))
                    for c, (a, b) in enumerate(zip(values, rows[r], strict=True))
                )
            ),
            None,
        )
        of.append(of[exact] if exact is not None else close if close is not None else row)
        nearly.append(exact is None and close is not None)
    return of, nearly


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[tuple[int, ...]], Near]:
    columns = draw(st.integers(1, 3))
    rows = draw(
        st.lists(st.tuples(*[st.integers(-1, 5)] * columns).filter(lambda r: max(r) >= 0), min_size=1, max_size=14)
    )
    near: Near = []
    for _ in range(columns):
        pairs = draw(st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5)).filter(lambda p: p[0] < p[1]), max_size=4))
        of_column: dict[int, list[int]] = {}
        for a, b in sorted(pairs):
            of_column.setdefault(a, []).append(b)
            of_column.setdefault(b, []).append(a)
        near.append(of_column)
    return rows, near


@given(cases())
@settings(max_examples=200, deadline=None)
def test_duplicates_equal_those_of_a_comparison_with_every_earlier_row(
    case: tuple[list[tuple[int, ...]], Near],
) -> None:
    rows, near = case
    found = find_duplicates(np.array(rows, dtype=np.int32), near)
    assert (found.original.tolist(), found.near.tolist()) == reference(rows, near)
    assert found.kept[found.original].all()


def contents(kinds: dict[str, str], rows: list[tuple[int, ...]], text: str = "label") -> list[ContentValues]:
    content_values = []
    for place, (name, kind) in enumerate(kinds.items()):
        content = ContentValues(Column(name, kind, kind), 0.8, 4)  # type: ignore[arg-type]
        for number in range(max(row[place] for row in rows) + 1):
            if kind == "text":
                content.number(f"{text} {number}")
            else:
                content._numbers[bytes([number % 256, number // 256])] = number
        for row in rows:
            content.append(row[place])
        content_values.append(content)
    return content_values


def test_one_picture_with_two_captions_is_linked() -> None:
    content_values = contents({"picture": "image", "title": "text"}, [(0, 0), (0, 1), (1, 2)])
    links = find_links(content_values, np.ones(3, dtype=bool), [{}, {}])
    assert (links.pairs.tolist(), links.near.tolist(), links.common) == ([[0, 1]], [False], [])


def test_near_captions_of_other_pictures_are_linked() -> None:
    content_values = contents({"picture": "image", "title": "text"}, [(0, 0), (1, 1), (2, 2)])
    links = find_links(content_values, np.ones(3, dtype=bool), [{}, {0: [2], 2: [0]}])
    assert (links.pairs.tolist(), links.near.tolist()) == ([[0, 2]], [True])


def test_a_row_that_was_left_out_links_nothing() -> None:
    content_values = contents({"title": "text"}, [(0,), (0,), (0,)])
    links = find_links(content_values, np.array([True, False, True]), [{}])
    assert links.pairs.tolist() == [[0, 2]]


def test_a_label_of_many_rows_links_nothing_and_is_reported() -> None:
    rows = [(number, number % 10) for number in range(1500)]
    content_values = contents({"sound": "audio", "digit": "text"}, rows)
    links = find_links(content_values, np.ones(1500, dtype=bool), [{}, {}])
    assert len(links.pairs) == 0
    assert [(c.column, c.rows, c.near) for c in links.common] == [("digit", 150, False)] * 10


def test_one_picture_of_very_many_rows_is_linked_and_reported() -> None:
    content_values = contents({"picture": "image", "title": "text"}, [(number % 3, number) for number in range(300)])
    links = find_links(content_values, np.ones(300, dtype=bool), [{}, {}])
    assert components(300, links.pairs, None).max() == 2
    content_values = contents({"picture": "image", "title": "text"}, [(0, number) for number in range(300)])
    links = find_links(content_values, np.ones(300, dtype=bool), [{}, {}])
    assert components(300, links.pairs, None).max() == 0
    assert [(c.column, c.rows, c.near, c.links) for c in links.common] == [("picture", 300, False, True)]


NEAR_ONE_ANOTHER = {a: [b for b in range(50) if b != a] for a in range(50)}


def test_a_label_near_the_labels_of_many_rows_links_nothing_and_is_reported() -> None:
    content_values = contents({"title": "text"}, [(number,) for number in range(400)])
    links = find_links(content_values, np.ones(400, dtype=bool), [NEAR_ONE_ANOTHER])
    assert len(links.pairs) == 0
    assert [(c.rows, c.near) for c in links.common] == [(50, True)] * 50


@pytest.mark.parametrize("kind", ["image", "text"])
def test_pictures_and_long_texts_near_many_others_are_linked(kind: str) -> None:
    content_values = contents(
        {"content": kind}, [(number,) for number in range(400)], text="a long description of a thing " * 2
    )
    links = find_links(content_values, np.ones(400, dtype=bool), [NEAR_ONE_ANOTHER])
    assert (np.bincount(components(400, links.pairs, None)).max(), links.common) == (50, [])


def test_a_long_text_of_many_rows_is_linked_and_reported() -> None:
    rows = [(number, number % 10) for number in range(1500)]
    content_values = contents({"sound": "audio", "title": "text"}, rows, text="a long description of a thing " * 2)
    links = find_links(content_values, np.ones(1500, dtype=bool), [{}, {}])
    assert components(1500, links.pairs, None).max() == 9
    assert [(c.rows, c.links) for c in links.common] == [(150, True)] * 10


@pytest.mark.parametrize(
    ("kind", "rows", "limit"),
    [
        ("text", 10, 5),
        ("text", 100, 10),
        ("text", 1500, 20),
        ("text", 100_000, 1000),
        ("image", 50, 20),
        ("image", 1000, 100),
    ],
)
def test_the_limit_of_common_values(kind: str, rows: int, limit: int) -> None:
    assert common_limit(kind, rows) == limit
