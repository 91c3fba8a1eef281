"""A text reads, once a word is removed, as if that word had never been there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal.core.errors import Unreadable
from multimodal.media.parts.words import word_parts, word_spans


@pytest.mark.parametrize(
    ("text", "words", "without"),
    [
        ("a red cup", ["a", "red", "cup"], ["red cup", "a cup", "a red"]),
        ("  red\ncup ", ["red", "cup"], ["  cup ", "  red"]),
        ("cup, red", ["cup,", "red"], ["red", "cup,"]),
        ("赤い cup", ["赤", "い", "cup"], ["い cup", "赤 cup", "赤い"]),
        ("größe\u00a0x", ["größe", "x"], ["x", "größe"]),
    ],
)
def test_each_word_is_removed_with_one_space(text: str, words: list[str], without: list[str]) -> None:
    parts = word_parts(text, str)
    assert list(parts.names) == words
    assert [parts.without(number) for number in range(len(words))] == without


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_comes_apart_into_all_that_is_not_space(text: str) -> None:
    spans = word_spans(text)
    assert "".join(text[start:end] for start, end in spans) == "".join(text.split())
    parts = word_parts(text, lambda left: [left[start:end] for start, end in word_spans(left)])
    for number in range(len(parts)):
        if len(parts) == 1:
            with pytest.raises(Unreadable, match="nothing is left without"):
                parts.without(number)
        else:
            assert "".join(parts.without(number)) == "".join([*parts.names[:number], *parts.names[number + 1 :]])


def test_the_drawing_has_the_text_and_the_colours() -> None:
    parts = word_parts('<b>\n"red"  cup', str)
    assert parts.draw is not None
    drawing = parts.draw([0.5, -0.25, 0.0])
    assert "rgba(240, 140, 0, 0.8)" in drawing
    assert "rgba(28, 126, 214, 0.4)" in drawing
    assert ">&lt;b&gt;</span>\n<span" in drawing
    assert 'title="&quot;red&quot;: -0.250"' in drawing
