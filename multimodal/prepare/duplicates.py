"""Which rows say nothing new, and which rows must stay together.

- A row whose content columns all equal those of an earlier row is a *duplicate*: it is left out.
- A row that has the same content columns as an earlier row that stays, each equal or near to its, is a *near
  duplicate*: it is left out.
- Rows that are equal or near in some content columns only (one picture with two captions) both stay. They are
  *linked*: no split may come between them.

A label is no link: 150 recordings of "zero" are not 150 forms of one thing. A value that stands in many rows, or is near
those of many, is called *common*; ``common_limit`` says what many is. Common values that may be labels (short texts,
numbers, codes) link nothing. Files and long texts are linked in any number, for a picture that training shows must not
be asked for in the test.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from multimodal.prepare.distinct_values import MISSING, ContentValues

Neighbours = Mapping[int, Sequence[int]]


@dataclass(frozen=True)
class Duplicates:
    """For each row that was read, the row it repeats: ``(n,)`` int64, its own number where it stays.

    ``near`` is ``(n,)`` bool: it repeats that row nearly, not exactly.
    """

    of: np.ndarray
    near: np.ndarray

    @property
    def stays(self) -> np.ndarray:
        return self.of == np.arange(len(self.of))


def find_duplicates(values: np.ndarray, neighbours: Sequence[Neighbours]) -> Duplicates:
    """The duplicates and near duplicates among rows, the first of them staying.

    Args:
        values: ``(n, columns)`` int32, the number of each content column's value, -1 for none.
        neighbours: for each column, value -> the values near it.
    """
    count, columns = values.shape
    of, near = np.arange(count), np.zeros(count, dtype=bool)
    first: dict[bytes, int] = {}
    holders: list[dict[int, list[int]]] = [{} for _ in range(columns)]  # value -> the rows that stay and hold it
    for row, numbers in enumerate(values):
        original = first.setdefault(numbers.tobytes(), row)
        if original == row:
            match = _find_near_row(numbers.tolist(), values, neighbours, holders)
            if match is None:
                for column, number in enumerate(numbers.tolist()):
                    if number != MISSING:
                        holders[column].setdefault(number, []).append(row)
                continue
            near[row], original = True, match
        of[row] = of[original]  # what repeats a near duplicate repeats what that one repeats
    return Duplicates(of, near)


def _find_near_row(
    numbers: Sequence[int],
    values: np.ndarray,
    neighbours: Sequence[Neighbours],
    holders: Sequence[Mapping[int, Sequence[int]]],
) -> int | None:
    """The first row that stays and is near in every column; looked for by the column that leaves fewest to look at."""
    near = [{n, *neighbours[c].get(n, ())} if n != MISSING else {MISSING} for c, n in enumerate(numbers)]
    fewest: list[int] | None = None
    for column, number in enumerate(numbers):
        if number == MISSING:
            continue
        rows = [row for value in near[column] for row in holders[column].get(value, ())]
        if fewest is None or len(rows) < len(fewest):
            fewest = rows
        if not fewest:
            return None
    fitting = (r for r in sorted(fewest or ()) if all(v in near[c] for c, v in enumerate(values[r].tolist())))
    return next(fitting, None)


# -- links


@dataclass(frozen=True)
class CommonValue:
    """A value that stands in ``rows`` rows, or is near the values of so many (``near``); whether it links them all the same.

    Of those that link, the near ones are not told: the rows that hang together are.
    """

    column: str
    number: int
    rows: int
    near: bool
    links: bool = False


@dataclass(frozen=True)
class Links:
    """Pairs of rows that belong together, ``(m, 2)`` int64; which of them are near, ``(m,)`` bool; the common values."""

    pairs: np.ndarray
    near: np.ndarray
    common: list[CommonValue]


def common_limit(kind: str, rows: int) -> int:
    """In how many rows a value may stand before it is common.

    Texts are often labels: at most 20 rows or 1 % of them, in tables of less than 200 rows a tenth (but 5). Anything
    else up to 20 rows or a tenth.
    """
    return max(5, min(rows // 10, 20), rows // 100) if kind == "text" else max(20, rows // 10)


def find_links(contents: Sequence[ContentValues], stays: np.ndarray, neighbours: Sequence[Neighbours]) -> Links:
    """The links between the rows that stay."""
    pairs, near = array("q"), bytearray()
    common: list[CommonValue] = []
    staying = int(stays.sum())
    for content, others in zip(contents, neighbours, strict=True):
        limit = common_limit(content.column.kind, staying)
        name = content.column.name
        rows = np.flatnonzero(stays & (content.rows != MISSING))
        numbers = content.rows[rows]
        counts = np.bincount(numbers, minlength=len(content))
        order = np.argsort(numbers, kind="stable")
        starts = np.concatenate([[0], np.cumsum(counts)])
        labels = content.labels
        for number in np.flatnonzero(counts > limit).tolist():
            common.append(CommonValue(name, number, int(counts[number]), near=False, links=not labels[number]))
        for number in np.flatnonzero((counts > 1) & ((counts <= limit) | ~labels)).tolist():
            held = rows[order[starts[number] : starts[number + 1]]].tolist()
            pairs.extend(row for pair in pairwise(held) for row in pair)
            near += bytes(len(held) - 1)
        around = {n: int(counts[n] + counts[list(o)].sum()) for n, o in others.items() if counts[n]}
        apart = {number for number, total in around.items() if total > limit and labels[number]}
        common += [CommonValue(name, n, around[n], near=True) for n in apart if counts[n] <= limit]
        first = {n: int(rows[order[starts[n]]]) for n in around}
        for number in sorted(around.keys() - apart):
            for other in others[number]:
                if number < other and other in around and other not in apart:
                    pairs.extend((first[number], first[other]))
                    near.append(True)
    common.sort(key=lambda c: (c.near, -c.rows, c.column, c.number))
    return Links(np.array(pairs, dtype=np.int64).reshape(-1, 2), np.frombuffer(near, dtype=bool), common)
