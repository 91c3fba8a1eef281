"""Hits show themselves as lines, tables and grids of pictures, and cells of a table are shown as text."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from multimodal.core.errors import UsageError
from multimodal.media.picture_grid import thumbnail
from multimodal.search.hits import Grid, Hit, HitLists, Hits


def picture(color: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), color).save(buffer, "PNG")
    return buffer.getvalue()


FILES = {"a": picture("red"), "b": picture("blue"), "c": b"not a picture"}
HITS = Hits(
    [
        Hit("a", "image", 0.9125, {"title": "a red\ncup", "price": 3, "sku": "a"}, FILES.get),
        Hit("b", "text", -0.25, {"title": "<b>mug</b>", "price": None}, FILES.get),
        Hit("c", "text", -0.5, {}, FILES.get),
        Hit("d", "text", -1.0, {"title": "x" * 500}),
    ]
)


def test_hits_print_one_line_each() -> None:
    lines = repr(HITS).splitlines()
    assert lines[:3] == ["0.912 image a title=a red cup | price=3", "-0.250 text b title=<b>mug</b>", "-0.500 text c"]
    assert lines[3].startswith("-1.000 text d title=xxx")
    assert len(lines[3]) <= 120
    assert repr(Hits()) == "No hits"
    assert repr(Hits([Hit("e", "text", 0.5, {"price": 3, "name": "a\nmug"})])) == "0.500 text e a mug"


def test_hits_that_words_found_say_which() -> None:
    hit = Hit("AX-400", "image", 0.1, {"name": "a lamp"}, words=("ax", "400"))
    assert repr(Hits([hit])) == "0.100 image AX-400 [words: ax 400] a lamp"
    assert hit.to_json()["words"] == ["ax", "400"]
    assert "[words: ax 400]" in Hits([hit])._repr_html_()
    assert "words" not in HITS[0].to_json()


def test_hits_of_several_queries_are_shown_apart() -> None:
    first, second = Hits(HITS[:2]), Hits(HITS[2:])
    both = HitLists([first, second])
    assert repr(both).split("\n\n") == [repr(first), repr(second)]
    assert repr(HitLists()) == "No queries"
    assert both == [first, second]
    assert [len(both), both[1], list(both)] == [2, second, [first, second]]
    assert repr(both[1:]) == repr(HitLists([second]))
    page = both._repr_html_()
    assert page == f"<p>Query 0</p>{first._repr_html_()}<p>Query 1</p>{second._repr_html_()}"


def test_a_slice_of_hits_is_hits() -> None:
    assert isinstance(HITS[1:], Hits)
    assert HITS[1:] == list(HITS)[1:]
    assert HITS[0].key == "a"


def test_pictures_are_read_when_they_are_asked_for() -> None:
    assert HITS[0].picture == FILES["a"]
    assert HITS[3].picture is None


def test_a_notebook_shows_pictures_and_texts_as_text() -> None:
    page = HITS._repr_html_()
    assert page.count("<img ") == 2  # c cannot be read, d has none
    assert "<b>" not in page
    assert "&lt;b&gt;mug" in page
    assert "<th></th><th>score</th>" in page
    assert "<th></th>" not in HITS[2:]._repr_html_()


def test_the_head_of_thumbnails_is_empty_as_a_column_may_be_called_picture() -> None:
    page = Hits([Hit("a", "image", 0.5, {"picture": "a.png"}, FILES.get)])._repr_html_()
    assert page.count("<th>picture</th>") == 1


def test_a_grid_is_drawn_in_rows(tmp_path: Path) -> None:
    grid = HITS.grid(columns=3)
    drawn = grid.draw()
    one = Hits(HITS[:1]).grid().draw()
    assert drawn.size == (3 * one.width, 2 * one.height)
    middle = one.width // 2, one.width // 2
    assert drawn.getpixel(middle) == (255, 0, 0)
    assert drawn.getpixel((middle[0] + one.width, middle[1])) == (0, 0, 255)
    assert drawn.getpixel((middle[0] + 2 * one.width, middle[1])) == (255, 255, 255)  # c cannot be read
    grid.save(tmp_path / "hits.png")
    assert (tmp_path / "hits.png").read_bytes() == grid._repr_png_()


def test_the_caption_is_a_column_that_some_hit_has() -> None:
    assert HITS.grid(caption="price").draw() != HITS.grid().draw()
    with pytest.raises(UsageError, match=r"titel.*Did you mean 'title'"):
        HITS.grid(caption="titel")
    with pytest.raises(UsageError, match="at least 1 column"):
        Grid(HITS, columns=0)


def test_an_empty_grid_can_be_drawn() -> None:
    assert Hits().grid().draw().width > 0


def test_a_small_picture_is_enlarged_and_a_large_one_reduced() -> None:
    for (width, height), expected in {(48, 24): (96, 48), (112, 7): (112, 7), (400, 200): (112, 56)}.items():
        buffer = io.BytesIO()
        Image.new("L", (width, height)).save(buffer, "PNG")
        drawn = thumbnail(buffer.getvalue())
        assert drawn is not None
        assert drawn.size == expected
