"""Conditions of the command line are read as Python takes them."""

from __future__ import annotations

import pytest

from multimodal.cli.conditions import conditions
from multimodal.core.errors import UsageError


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], {}),
        (["set=a", "set=b=c", "name="], {"set": ["a", "b=c"], "name": [""]}),
        (["price>=5", "price<20"], {"price": {"gte": "5", "lt": "20"}}),
        (["price>-1e3", "price<=.5"], {"price": {"gt": "-1e3", "lte": ".5"}}),
        (["price >= 5", " price < 20 "], {"price": {"gte": "5", "lt": "20"}}),
        (["price==5", "set==a", "name== a"], {"price": ["5"], "set": ["a"], "name": [" a"]}),
        (["name= a"], {"name": [" a"]}),
        (["day>=2024-01-31T10:00"], {"day": {"gte": "2024-01-31T10:00"}}),
        (["income=<=50K", "title=a\nb > c"], {"income": ["<=50K"], "title": ["a\nb > c"]}),
    ],
)
def test_conditions_of_a_column_belong_together(given: list[str], expected: dict[str, object]) -> None:
    assert conditions("--where", given) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["shelf"], r"--pool_where shelf: a condition is COLUMN=VALUE, or a range as \"COLUMN>=VALUE\""),
        (["price>=5", "price=7"], "--pool_where price=7: price has both a value and a range"),
        (["price=7", "price>=5"], "--pool_where price>=5: price has both a value and a range"),
        (["price=>5"], r'--pool_where price=>5: a range is written "price>=5" or "price>5"\. \(A text such as .>5.'),
        (["day=<2024-01-31"], 'a range is written "day<=2024-01-31" or "day<2024-01-31"'),
        (["price<5", "price<7"], "--pool_where price<7: price has two bounds with <; give one"),
    ],
)
def test_what_excludes_one_another_is_refused(given: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        conditions("--pool_where", given)
