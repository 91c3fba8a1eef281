"""A hard negative differs from its caption in one attribute, and is never true of the row."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.core.errors import UsageError
from multimodal.prepare.synthesize import swaps as module
from multimodal.prepare.synthesize.swaps import Swaps, attribute_values, find_words

COLOURS = ["red", "dark red", "blue", "navy blue", "green", "orange", "Grey"]
KINDS = ["cup", "cups", "tea cup", "plate", "orange"]


def made(swaps: Swaps, caption: str, values: dict[str, str], group: str = "#0", seed: int = 0) -> list[str]:
    return swaps.candidates(caption, values, group, np.random.default_rng(seed))


def swaps_of(*rows: tuple[str, str, str]) -> Swaps:
    swaps = Swaps("title", "colour")
    for colour, title, group in rows:
        swaps.add({"colour": colour, "title": title}, group)
    return swaps


@given(
    st.lists(st.tuples(st.sampled_from(COLOURS), st.sampled_from(KINDS), st.integers(0, 5)), min_size=2, max_size=20)
)
@settings(max_examples=60)
def test_only_the_attribute_changes_and_no_value_that_may_be_true_is_taken(rows: list[tuple[str, str, int]]) -> None:
    swaps = swaps_of(*((colour, f"a {colour} {kind} of ours", f"={group}") for colour, kind, group in rows))
    for colour, kind, group in rows:
        caption = f"a {colour} {kind} of ours"
        true_of_group = {c for c, _, g in rows if g == group}
        for negative in made(swaps, caption, {"colour": colour, "kind": kind, "title": caption}, f"={group}"):
            found = re.fullmatch(rf"an? (.+) {re.escape(kind)} of ours", negative)
            assert found is not None
            name = found[1].lower()
            assert name in {c.lower() for c, _, _ in rows}  # a value of the table
            assert name not in {c.lower() for c in true_of_group}
            assert name != kind  # an "orange" is not swapped in where the row says orange elsewhere
            one, other = ({*words.split()} for words in (name, colour.lower()))
            assert not one <= other
            assert not other <= one


def test_the_case_and_the_article_of_the_caption_are_kept() -> None:
    swaps = swaps_of(("red", "a red cup", "=1"), ("orange", "an orange hat", "=2"))
    values = {"colour": "red"}
    assert made(swaps, "A red cup", values) == ["An orange cup"]
    assert made(swaps, "RED cup", values) == ["ORANGE cup"]
    assert made(swaps, "Red cup", values) == ["Orange cup"]
    assert made(swaps, "cup (red)", values) == ["cup (orange)"]
    assert made(swaps, "an orange hat", {"colour": "orange"}) == ["a red hat"]


def test_only_whole_words_are_swapped() -> None:
    swaps = swaps_of(("red", "", "=1"), ("blue", "", "=2"))
    assert made(swaps, "a tired, hundred-year-old reddish cup", {"colour": "red"}) == []
    assert find_words("c++", "a c++ book") == (2, 5)
    assert find_words("a.b", "axb") is None


def test_a_cell_with_several_values_excludes_all_of_them() -> None:
    swaps = swaps_of(("red, blue", "", "=1"), ("green", "", "=2"))
    assert made(swaps, "a red cup", {"colour": "red, blue"}) == ["a green cup"]
    assert attribute_values("red;  blue | green/x") == ["red", "blue", "green", "x"]


def test_a_value_in_another_cell_of_the_row_may_be_true() -> None:
    swaps = swaps_of(("red", "", "=1"), ("blue", "", "=2"), ("green", "", "=3"))
    values = {"colour": "red", "handle": "bright Blue"}
    assert made(swaps, "a red cup", values) == ["a green cup"]


def test_a_column_of_names_is_not_an_attribute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_VALUES", 3)
    swaps = Swaps("title", "sku")
    for number in range(3):
        swaps.add({"sku": f"s-{number}"}, "=1")
    with pytest.raises(UsageError, match="'sku' has more than 3 different values"):
        swaps.add({"sku": "s-3"}, "=1")
