"""Duplicates among rows, and links between rows that must be in one split.

- A row whose content columns all equal those of an earlier row is a *duplicate* and is left out.
- A row that has the same content columns as an earlier, kept row, each equal or near, is a *near duplicate* and is left
  out.
- Rows that are equal or near in only some content columns (one picture with two captions) are both kept. They are *linked*:
  they must be in one split.

Equal labels do not link rows: 150 recordings of "zero" are not 150 forms of one item. A value that occurs in many rows, or is
near the values of many rows, is called *common*; ``common_limit`` defines many. Common values that may be labels (short
texts, numbers, codes) link nothing. Files and long texts link any number of rows, because a picture that training shows must
not be a query of the test.
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
    """Duplicates among n rows.

    Args:
        original: ``(n,)`` int64, the row that each row repeats; its own number if it is kept.
        near: ``(n,)`` bool, whether it is a near duplicate of that row rather than an exact one.

    Examples:
        >>> Duplicates(original=np.array([0, 0, 2]), near=np.array([False, True, False])).kept.tolist()
        [True, False, True]
    """

    original: np.ndarray
    near: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """Whether each row is kept, ``(n,)`` bool."""
        return self.original == np.arange(len(self.original))


def find_duplicates(values: np.ndarray, neighbours: Sequence[Neighbours]) -> Duplicates:
    """Find the duplicates and near duplicates among rows; the first row of each set is kept.

    Args:
        values: ``(n, columns)`` int32, the number of each content column's value, -1 for none.
        neighbours: for each column, value -> the values near it.
    """
    count, columns = values.shape
    originals, near = np.arange(count), np.zeros(count, dtype=bool)
    first: dict[bytes, int] = {}
    holders: list[dict[int, list[int]]] = [{} for _ in range(columns)]  # value -> the kept rows that have it
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
        originals[row] = originals[original]  # a duplicate of a near duplicate has the same original
    return Duplicates(originals, near)


def _find_near_row(
    numbers: Sequence[int],
    values: np.ndarray,
    neighbours: Sequence[Neighbours],
    holders: Sequence[Mapping[int, Sequence[int]]],
) -> int | None:
    """Return the first kept row that is near in every column; candidates come from the column with the fewest."""
    near = [{n, *neighbours[c].get(n, ())} if n != MISSING else {MISSING} for c, n in enumerate(numbers)]
    candidates: list[int] | None = None
    for column, number in enumerate(numbers):
        if number == MISSING:
            continue
        rows = [row for value in near[column] for row in holders[column].get(value, ())]
        if candidates is None or len(rows) < len(candidates):
            candidates = rows
        if not candidates:
            return None
    matches = (r for r in sorted(candidates or ()) if all(v in near[c] for c, v in enumerate(values[r].tolist())))
    return next(matches, None)


# -- links


@dataclass(frozen=True)
class CommonValue:
    """Value that occurs in many rows or is near the values of many rows.

    Common values that link by nearness are not listed; the linked rows are reported instead.

    Attributes:
        column: name of the column.
        number: number of the value.
        rows: number of rows that have it or, with ``near``, have it or a value near it.
        near: whether ``rows`` counts near values.
        links: whether it nevertheless links its rows.
    """

    column: str
    number: int
    rows: int
    near: bool
    links: bool = False


@dataclass(frozen=True)
class Links:
    """Links between rows that must be in one split.

    Attributes:
        pairs: ``(m, 2)`` int64, pairs of linked rows.
        near: ``(m,)`` bool, whether a pair is linked by near rather than equal values.
        common: the common values.
    """

    pairs: np.ndarray
    near: np.ndarray
    common: list[CommonValue]


def common_limit(kind: str, rows: int) -> int:
    """Return the maximum number of rows in which a value may occur without being common.

    Texts are often labels: 20 rows or 1 % of the rows, whichever is more; in tables of fewer than 200 rows a tenth, but at
    least 5. Other kinds: 20 rows or a tenth of the rows, whichever is more.
    """
    return max(5, min(rows // 10, 20), rows // 100) if kind == "text" else max(20, rows // 10)


def find_links(contents: Sequence[ContentValues], kept: np.ndarray, neighbours: Sequence[Neighbours]) -> Links:
    """Find the links between the kept rows.

    Args:
        contents: the values of each content column.
        kept: ``(n,)`` bool, the rows that are kept.
        neighbours: for each content column, value -> the values near it.
    """
    pairs, near = array("q"), bytearray()
    common: list[CommonValue] = []
    kept_count = int(kept.sum())
    for content, others in zip(contents, neighbours, strict=True):
        limit = common_limit(content.column.kind, kept_count)
        name = content.column.name
        rows = np.flatnonzero(kept & (content.rows != MISSING))
        numbers = content.rows[rows]
        counts = np.bincount(numbers, minlength=len(content))
        order = np.argsort(numbers, kind="stable")
        starts = np.concatenate([[0], np.cumsum(counts)])
        labels = content.may_be_label
        for number in np.flatnonzero(counts > limit).tolist():
            common.append(CommonValue(name, number, int(counts[number]), near=False, links=not labels[number]))
        for number in np.flatnonzero((counts > 1) & ((counts <= limit) | ~labels)).tolist():
            rows_with_value = rows[order[starts[number] : starts[number + 1]]].tolist()
            pairs.extend(row for pair in pairwise(rows_with_value) for row in pair)
            near += bytes(len(rows_with_value) - 1)
        rows_near = {n: int(counts[n] + counts[list(o)].sum()) for n, o in others.items() if counts[n]}
        unlinked = {number for number, total in rows_near.items() if total > limit and labels[number]}
        common += [CommonValue(name, n, rows_near[n], near=True) for n in unlinked if counts[n] <= limit]
        first = {n: int(rows[order[starts[n]]]) for n in rows_near}
        for number in sorted(rows_near.keys() - unlinked):
            for other in others[number]:
                if number < other and other in rows_near and other not in unlinked:
                    pairs.extend((first[number], first[other]))
                    near.append(True)
    common.sort(key=lambda c: (c.near, -c.rows, c.column, c.number))
    return Links(np.array(pairs, dtype=np.int64).reshape(-1, 2), np.frombuffer(near, dtype=bool), common)
