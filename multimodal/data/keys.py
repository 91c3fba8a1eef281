"""Keys of rows that are stored: each names one row."""

from __future__ import annotations

import numpy as np

from multimodal.core.errors import UsageError, shown
from multimodal.data.samples import Samples

HELP = "name a column of which each row has its own value (`--key COLUMN`), or remove the rows that are there twice."


def check_unique_keys(samples: Samples, rows: np.ndarray) -> None:
    """Raise a ``UsageError`` that names the first two rows of one key, if several have it.

    Args:
        samples: the table.
        rows: ``(r,)`` numbers of the rows that are to be stored.

    Examples:
        >>> samples = Samples.of([{"t": "a", "sku": "s-1"}, {"t": "b", "sku": "s-1"}], {"text": "t"}, key="sku")
        >>> check_unique_keys(samples, np.arange(2))
        Traceback (most recent call last):
        ...
        multimodal.core.errors.UsageError: Rows 0 and 1 of 'in memory' both have the key 's-1' ...
    """
    if samples.schema.key is None or len(rows) < 2:
        return
    numbers = np.unique(rows).tolist()
    hashes = np.fromiter((hash(samples.key_of(row)) for row in numbers), np.int64, len(numbers))  # 8 bytes a row
    values, counts = np.unique(hashes, return_counts=True)
    if not len(several := values[counts > 1]):
        return
    first: dict[str, int] = {}
    more = 0
    named = ""
    for place in np.flatnonzero(np.isin(hashes, several)).tolist():
        key, row = samples.key_of(numbers[place]), numbers[place]
        if key in first:
            more += 1
            named = named or f"Rows {first[key]} and {row} of {samples.name!r} both have the key {shown(key)!r}"
        first.setdefault(key, row)
    if named:
        others = f" In all, {more:,} rows have the key of an earlier row." if more > 1 else ""
        raise UsageError(f"{named} (column {samples.schema.key!r}).{others} A key names one row: {HELP}")
