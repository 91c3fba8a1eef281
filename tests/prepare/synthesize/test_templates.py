"""Templates hold names of columns and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal.core.errors import UsageError
from multimodal.prepare.cleaning import clean_text
from multimodal.prepare.synthesize.templates import Template, as_words

COLUMNS = ["colour", "kind", "a b", "ü"]
PLAIN = st.text(st.characters(exclude_characters="{}", exclude_categories=("Cs",)), max_size=20)


@pytest.mark.parametrize(
    "hostile",
    [
        "{colour.__class__}",
        "{colour.__class__.__init__.__globals__}",
        "{0}",
        "{}",
        "{colour[0]}",
        "{colour!r}",
        "{colour:>1000000000}",
        "{colour:{kind}}",
        "{ colour }",
        "{Colour}",
        "{self}",
        "{colour",
        "colour}",
        "{{colour}",
        "a cup",
        "{{colour}}",
        "",
        "{colour}" + "x" * 2000,
    ],
)
def test_anything_but_names_of_columns_is_refused(hostile: str) -> None:
    with pytest.raises(UsageError):
        Template.parse(hostile, COLUMNS)


def test_a_wrong_name_is_quoted_with_the_right_one() -> None:
    with pytest.raises(UsageError, match=r"names a column 'color'.*Did you mean 'colour'"):
        Template.parse("a {color} cup", COLUMNS)


@given(st.lists(st.tuples(PLAIN, st.sampled_from(COLUMNS)), min_size=1, max_size=5), PLAIN)
def test_a_template_is_filled_as_if_its_parts_were_joined(parts: list[tuple[str, str]], end: str) -> None:
    values = {"colour": "red {kind}", "kind": 3, "a b": "x", "ü": 1.5}
    words = {"colour": "red {kind}", "kind": "3", "a b": "x", "ü": "1.5"}
    template = Template.parse("".join(f"{text}{{{column}}}" for text, column in parts) + end, COLUMNS)
    expected = clean_text("".join(f"{text}{words[column]}" for text, column in parts) + end)
    assert template.fill(values) == expected
    assert {*template.columns} == {column for _, column in parts}


def test_double_braces_are_braces() -> None:
    assert Template.parse("{{{colour}}} {{x}}", COLUMNS).fill({"colour": "red"}) == "{red} {x}"


@pytest.mark.parametrize(
    "missing", [None, "", "  ", float("nan"), b"file", {"a": 1}, float("inf"), 10**19, ["a", None]]
)
def test_a_value_without_words_leaves_the_template_out(missing: Any) -> None:
    assert Template.parse("a {colour} {kind}", COLUMNS).fill({"kind": "cup", "colour": missing}) is None


def test_a_caption_that_would_be_very_long_is_left_out() -> None:
    assert Template.parse("{colour}", COLUMNS).fill({"colour": "x" * 30_000}) is None


def test_values_are_written_as_people_write_them() -> None:
    values = [3, 3.0, 0.25, True, ["red", "blue"], " a  b "]
    assert [as_words(value) for value in values] == ["3", "3", "0.25", "yes", "red, blue", "a b"]
