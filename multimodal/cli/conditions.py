"""Conditions on columns as options: ``--where category=mugs --where "price>=5" --where "price<20"``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from multimodal.core.conditions import SIGNS, comparable
from multimodal.core.errors import UsageError

CONDITION = 'a condition is COLUMN=VALUE, or a range as "COLUMN>=VALUE" (>, >=, <, <=; in quotes)'
OPERATORS = {sign: name for name, sign in SIGNS.items()}


def conditions(option: str, given: Sequence[str]) -> dict[str, Any]:
    """Return conditions as ``Index.search`` takes them.

    The first ``=``, ``<`` or ``>`` of a condition ends the name of its column.

    Args:
        option: the option, for errors.
        given: its values. Of a column that is given several values, a row may have any of them; several bounds make a range.

    Raises:
        UsageError: a condition is written in another way, or those of a column exclude one another.

    Examples:
        >>> conditions("--where", ["set=a", "set=b", "price>=5", "price<20", "day>=2024-01-31", "income=>50K"])
        {'set': ['a', 'b'], 'price': {'gte': '5', 'lt': '20'}, 'day': {'gte': '2024-01-31'}, 'income': ['>50K']}
    """
    found: dict[str, Any] = {}
    for text in given:
        parts = re.fullmatch(r"([^<>=]*)(>=|<=|==|>|<|=)(.*)", text, re.DOTALL)
        if parts is None:
            raise UsageError(f"{option} {text}: {CONDITION}, like category=mugs.")
        column, sign, value = parts.groups()
        sign = "=" if sign == "==" else sign
        if sign == "=" and value[:1] in ("<", ">") and comparable(value.lstrip("<>= ")) is not None:
            raise UsageError(
                f'{option} {text}: a range is written "{column}{value[0]}={value.lstrip("<>= ")}" or'
                f' "{column}{value[0]}{value.lstrip("<>= ")}". (A text such as {value!r} can be asked for from Python.)'
            )
        if sign != "=":  # "price >= 5", while a value may begin with a space
            column, value = column.strip(), value.strip()
        wanted = found.setdefault(column, [] if sign == "=" else {})
        if isinstance(wanted, list) != (sign == "="):
            raise UsageError(f"{option} {text}: {column} has both a value and a range; give one of them.")
        if isinstance(wanted, list):
            wanted.append(value)
        elif OPERATORS[sign] in wanted:
            raise UsageError(f"{option} {text}: {column} has two bounds with {sign}; give one.")
        else:
            wanted[OPERATORS[sign]] = value
    return found
