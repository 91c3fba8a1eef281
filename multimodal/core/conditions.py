"""Conditions on the columns of rows: a value, one of several values, or a range of numbers or dates.

1. Values are compared as texts, as tables from CSV files hold nothing else: ``{"set": "lucide", "year": [2020, 2021]}``.
2. Ranges compare numbers or dates: ``{"price": {"gte": 5, "lt": 20}, "day": {"gte": "2024-01-31"}}``. The operators are ``gt``,
   ``gte``, ``lt`` and ``lte``. A cell is a number if it is one or if its text reads as one, and a date if its text is one in
   ISO 8601; other cells, and missing ones, are in no range.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from numbers import Integral, Real
from typing import Any, Literal

from multimodal.core.errors import UsageError, shown, suggest

MAX_FILTER_TEXT = 256  # characters of a cell that can be filtered on; longer ones are descriptions
MAX_COMPARED_TEXT = 64  # characters of a number or a date
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ].+)?")
SIGNS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
EXAMPLE = '{"gte": 5, "lt": 20}'

Kind = Literal["number", "date"]


@dataclass(frozen=True)
class Range:
    """A range of numbers or dates; ``Range.of`` reads and checks what users write.

    Attributes:
        kind: "number" or "date".
        gt, gte: the lower bound, without or with itself. Dates are seconds since 1970-01-01 in UTC.
        lt, lte: the upper bound.

    Examples:
        >>> cheap = Range.of("price", {"gte": 5, "lt": 20})
        >>> cheap.bounds, cheap.holds(5.0), cheap.holds(20.0), cheap.holds(None)
        ({'gte': 5.0, 'lt': 20.0}, True, False, False)
        >>> Range.of("day", {"gt": "1970-01-02"}).bounds
        {'gt': 86400.0}
    """

    kind: Kind
    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None

    @classmethod
    def of(cls, column: str, given: Mapping[str, Any]) -> Range:
        """Read a range.

        Args:
            column: the column, for errors.
            given: operator -> a number, or a date: a text in ISO 8601 or a ``datetime.date``.

        Raises:
            UsageError: an operator is unknown, a bound is neither a number nor a date, or no value can be in the range.
        """
        for name in given:
            if name not in SIGNS:
                known = ", ".join(SIGNS)
                raise UsageError(
                    f"where: {column} has no operator {name!r}.{suggest(str(name), list(SIGNS))} A range is written"
                    f" {EXAMPLE}, with {known}."
                )
        if not given:
            raise UsageError(f"where: the range of {column} has no bounds; write it as {EXAMPLE}.")
        if {"gt", "gte"} <= given.keys() or {"lt", "lte"} <= given.keys():
            raise UsageError(f"where: {column} has two bounds on one side; give one of gt and gte, one of lt and lte.")
        read = {name: comparable(bound) for name, bound in given.items()}
        for name, bound in read.items():
            if bound is None:
                raise UsageError(
                    f"where: {column} {SIGNS[name]} {_quoted(given[name])} is not a range: give a finite number, or a date like"
                    " '2024-01-31'."
                )
        bounds = [bound for bound in read.values() if bound is not None]
        if len({kind for kind, _ in bounds}) > 1:
            raise UsageError(f"where: {column} is compared with a number and a date; give two numbers or two dates.")
        found = cls(bounds[0][0], **{name: bound[1] for name, bound in read.items() if bound is not None})
        low, high = (found.gt if found.gte is None else found.gte), (found.lt if found.lte is None else found.lte)
        if (
            low is not None
            and high is not None
            and (low > high or (low == high and not {"gte", "lte"} <= given.keys()))
        ):
            raise UsageError(f"where: no value of {column} is {describe_range(given)}.")
        return found

    @property
    def bounds(self) -> dict[str, float]:
        """Operator -> bound, of those that are given."""
        return {name: bound for name in SIGNS if (bound := getattr(self, name)) is not None}

    def holds(self, value: float | None) -> bool:
        """Return whether a value is in the range; a missing one is in none.

        Args:
            value: a number, or the seconds of a date.
        """
        return (
            value is not None
            and (self.gt is None or value > self.gt)
            and (self.gte is None or value >= self.gte)
            and (self.lt is None or value < self.lt)
            and (self.lte is None or value <= self.lte)
        )


Where = Mapping[str, Sequence[str] | Range]  # column -> the texts of which a row must have one, or a range


def _quoted(bound: Any) -> str:
    return f"{shown(bound)!r}" if isinstance(bound, str) else shown(bound)


def describe_range(given: Mapping[str, Any]) -> str:
    """Return a range as it is read aloud.

    Args:
        given: operator -> bound.

    Examples:
        >>> describe_range({"gte": 5, "lt": 20})
        '>= 5 and < 20'
    """
    return " and ".join(f"{SIGNS[name]} {bound}" for name, bound in given.items())


def nothing_to_compare(column: str, kind: Kind, kinds: Collection[Kind] = ()) -> UsageError:
    """Return the error about a range of a column in which no row has a value that the range can compare.

    Args:
        column: the column.
        kind: what the bounds of the range are.
        kinds: what ranges of the column can compare.

    Examples:
        >>> print(nothing_to_compare("title", "number"))
        where: no row has a number in 'title', which a range compares; choose its texts by their values.
        >>> print(nothing_to_compare("day", "number", {"date"}))
        where: 'day' has dates, and the range is one of numbers; give dates like 2024-01-31.
    """
    if kinds:
        given, has = ("dates", "numbers") if kind == "date" else ("numbers", "dates")
        like = "numbers" if kind == "date" else "dates like 2024-01-31"
        return UsageError(f"where: {column!r} has {has}, and the range is one of {given}; give {like}.")
    return UsageError(
        f"where: no row has a {kind} in {column!r}, which a range compares; choose its texts by their values."
    )


def comparable(cell: Any) -> tuple[Kind, float] | None:
    """Return what a range compares of a cell: a finite number, or the seconds of a date; None if it is neither.

    A date without a time is its first moment; without a time zone it is one of UTC.

    Args:
        cell: the cell, or a bound.

    Examples:
        >>> comparable(3), comparable("3.50"), comparable("1970-01-02T01:00+01:00")
        (('number', 3.0), ('number', 3.5), ('date', 86400.0))
        >>> comparable("a cup"), comparable(True), comparable(float("nan")), comparable(None)
        (None, None, None, None)
    """
    if isinstance(cell, date):  # a datetime is one too
        cell = cell.isoformat()
    if isinstance(cell, str):
        return _comparable_text(cell)
    if not isinstance(cell, Real) or isinstance(cell, bool):
        return None
    try:
        number = float(cell)
    except OverflowError:
        return None
    return ("number", number) if math.isfinite(number) else None


def _comparable_text(text: str) -> tuple[Kind, float] | None:
    if not text or len(text) > MAX_COMPARED_TEXT:
        return None
    if NUMBER.fullmatch(text):
        number = float(text)
        return ("number", number) if math.isfinite(number) else None
    if not DATE.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return "date", (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def filter_text(value: Any) -> str | None:
    """Return a cell as the text that conditions compare with; None if it cannot be filtered on.

    Args:
        value: the cell.

    Examples:
        >>> filter_text("Arrows"), filter_text(3), filter_text(True), filter_text("long " * 100)
        ('Arrows', '3', 'True', None)
    """
    text = None if value is None else str(value)
    return None if text is None or len(text) > MAX_FILTER_TEXT else text


def check_where(where: Mapping[str, Any] | None) -> Where | None:
    """Return conditions with their values as texts, and their ranges; None if there are none.

    Args:
        where: column -> a value, several of which a row must have one, or a range: operator -> bound.

    Examples:
        >>> check_where({"category": "Arrows", "year": range(2020, 2022), "price": 3.0})
        {'category': ('Arrows',), 'year': ('2020', '2020.0', '2021', '2021.0'), 'price': ('3.0', '3')}
        >>> check_where({"price": {"lt": 20}})["price"].bounds
        {'lt': 20.0}

    Raises:
        UsageError: a value is missing, or a text that is too long to be compared, or a range is wrong.
    """
    if not where:
        return None
    return {column: _condition(column, value) for column, value in where.items()}


def _condition(column: str, value: Any) -> tuple[str, ...] | Range:
    if isinstance(value, Mapping):
        return Range.of(column, value)
    values = value if isinstance(value, Iterable) and not isinstance(value, str | bytes) else [value]
    return tuple(text for one in values for text in _texts_of(column, one))


def _texts_of(column: str, value: Any) -> list[str]:
    """Return the texts with which a value is stored: a whole number may be one of a column with fractions."""
    text = filter_text(value)
    if text is None:
        what = "None" if value is None else f"a text of {len(str(value)):,} characters"
        raise UsageError(f"where: {column} cannot be compared with {what}; give values of at most {MAX_FILTER_TEXT}.")
    if isinstance(value, bool):
        return [text]
    if isinstance(value, Integral):
        return [text, f"{text}.0"]
    if isinstance(value, Real) and float(value).is_integer():
        return [text, str(int(float(value)))]
    return [text]
