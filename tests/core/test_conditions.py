"""Conditions are checked when they are read: each fault is one line that says what to write."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal.core.conditions import Range, check_where, comparable
from multimodal.core.errors import UsageError


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            {"gte": 5, "below": 20},
            r"price has no operator 'below'\. .*\{\"gte\": 5, \"lt\": 20\}, with gt, gte, lt, lte",
        ),
        ({"lts": 5}, r"no operator 'lts'\. Did you mean 'lte?'"),
        ({5: 5}, "no operator 5"),
        ({}, "the range of price has no bounds"),
        ({"gte": float("nan")}, "price >= nan is not a range: give a finite number, or a date like '2024-01-31'"),
        ({"lt": float("inf")}, "price < inf is not a range"),
        ({"lt": 10**400}, "price < <whole number of 1329 bits> is not a range"),
        ({"lt": "cheap"}, "price < 'cheap' is not a range"),
        ({"lt": "2024-02-30"}, "price < '2024-02-30' is not a range"),
        ({"lt": None}, "price < None is not a range"),
        ({"lt": True}, "price < True is not a range"),
        ({"lt": [1, 2]}, r"price < \[1, 2\] is not a range"),
        ({"gte": 5, "lt": "2024-01-31"}, "a number and a date; give two numbers or two dates"),
        ({"gte": 5, "lt": 5}, "no value of price is >= 5 and < 5"),
        ({"gt": 5, "lte": "5.0"}, "no value of price is > 5 and <= 5.0"),
        ({"gte": 6, "lte": 5}, "no value of price is >= 6 and <= 5"),
        ({"gte": "2024-01-31", "lt": "2024-01-30"}, "no value of price is >= 2024-01-31 and < 2024-01-30"),
        ({"gt": 1, "gte": 2}, "two bounds on one side; give one of gt and gte, one of lt and lte"),
    ],
)
def test_a_wrong_range_is_one_line(wanted: dict[Any, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        check_where({"price": wanted})
    assert str(error.value).startswith("where: ")
    assert "\n" not in str(error.value)


def test_values_are_compared_with_the_texts_of_any_type_of_number() -> None:
    where = check_where({"n": np.array([1, 2]), "f": np.float32(3), "b": [True, np.bool_(False)], "s": "x", "h": 0.5})
    assert where == {
        "n": ("1", "1.0", "2", "2.0"),
        "f": ("3.0", "3"),
        "b": ("True", "False"),
        "s": ("x",),
        "h": ("0.5",),
    }
    assert comparable(np.bool_(True)) is None


def test_a_range_of_one_value_holds_it() -> None:
    found = Range.of("price", {"gte": 5, "lte": "5.0"})
    assert (found.holds(5.0), found.holds(5.1), found.holds(4.9)) == (True, False, False)


@pytest.mark.parametrize("cell", [3, 3.0, "3", "3.0", "+3", "0.3e1", "003", np.int8(3), np.float32(3), Fraction(3)])
def test_numbers_of_any_type_are_compared(cell: Any) -> None:
    assert comparable(cell) == ("number", 3.0)
    assert comparable(str(float(cell))) == ("number", 3.0)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_and_its_text_are_the_same(number: float) -> None:
    assert comparable(number) == comparable(repr(number)) == ("number", number)


@given(st.datetimes(timezones=st.none() | st.just(UTC)))
def test_a_moment_and_its_text_are_the_same(moment: datetime) -> None:
    seconds = (moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=1)
    assert comparable(moment) == comparable(moment.isoformat()) == comparable(moment.isoformat(" "))
    assert comparable(moment) == ("date", pytest.approx(seconds, abs=1e-4, rel=0))


def test_a_date_is_its_first_moment_in_utc() -> None:
    assert comparable(date(2024, 1, 31)) == comparable("2024-01-31") == comparable("2024-01-31T00:00Z")
    assert comparable("2024-01-31T01:00+01:00") == comparable("2024-01-31")


@given(st.text(max_size=80))
def test_any_text_is_compared_or_left_out(text: str) -> None:
    found = comparable(text)
    if found is not None and found[0] == "number":
        assert float(text) == found[1]
    else:
        assert found is None or datetime.fromisoformat(text)
