"""The keys of embeddings that are indexed: each names one row, which may have alternatives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from multimodal.core.errors import MultimodalError, shown


def with_unique_keys(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the parts of embeddings, and raise an error for the first key of a second row.

    The alternatives of a row follow one another, with the same group and metadata; other rows of one key are several.

    Args:
        parts: the parts.

    Raises:
        MultimodalError: two rows have the same key.

    Examples:
        >>> part = pa.table({"key": ["a", "a"], "group": ["#0", "#1"], "metadata": ["{}", "{}"]})
        >>> list(with_unique_keys([part]))
        Traceback (most recent call last):
        ...
        multimodal.core.errors.MultimodalError: Rows 0 and 1 of the embeddings both have the key 'a', ...
    """
    seen: list[np.ndarray] = []  # hashes of keys: few sorted arrays, each larger than the next; 8 bytes a row
    keys: list[pa.ChunkedArray] = []
    last: tuple[str, str, str] | None = None
    rows = 0
    for part in parts:
        described = zip(*(part[name].to_pylist() for name in ("key", "group", "metadata")), strict=True)
        hashes, places = [], []
        for place, row in enumerate(described):
            if row != last:
                hashes.append(hash(row[0]))
                places.append(rows + place)
            last = row
        keys.append(part["key"])
        new = np.array(hashes, np.int64)
        values, counts = np.unique(new, return_counts=True)
        repeated = counts > 1
        for earlier in seen:
            repeated |= earlier[np.minimum(np.searchsorted(earlier, values), len(earlier) - 1)] == values
        again = set(values[repeated].tolist())
        if again:
            _check(keys, [place for one, place in zip(hashes, places, strict=True) if one in again])
        if len(values):
            seen.append(values)
        while len(seen) > 1 and len(seen[-2]) <= len(seen[-1]):  # each hash is merged a few times, not at each part
            seen[-2:] = [np.union1d(seen[-2], seen[-1])]
        rows += len(part)
        yield part


def _check(keys: list[pa.ChunkedArray], places: list[int]) -> None:
    """Raise an error unless the hashes alone are equal."""
    known = pa.chunked_array([chunk for part in keys for chunk in part.chunks], pa.string())
    for place in places:
        first = known.index(known[place]).as_py()
        if first < place:
            raise MultimodalError(
                f"Rows {first} and {place} of the embeddings both have the key {shown(known[place].as_py())!r}, which"
                " names one row of an index. Embed the table again, with a column of which each row has its own value"
                " as key (`multimodal embed --key COLUMN`)."
            )
