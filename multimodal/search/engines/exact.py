"""Exact search, which compares every stored vector with every query."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from multimodal.core.conditions import Kind, Range, Where, comparable, filter_text
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.search.engines.engine import ITEM_SCHEMA, Found
from multimodal.search.pieces import modalities_of, pieces_of
from multimodal.search.unit_vectors import describe_vector, not_unit

pc: Any = pyarrow.compute  # its functions are made when it is imported
SCORES = 1 << 25  # scores in memory at a time: 128 MiB
COMPARE = {"gt": np.greater, "gte": np.greater_equal, "lt": np.less, "lte": np.less_equal}
GATHERED_ROWS = 1 << 14  # stored vectors that are copied at a time when only some are searched


class ExactEngine:
    """Exact search of vectors in memory, or of a memory-mapped file, by matrix products.

    Args:
        vectors: ``(n, dim)`` float32 of unit length.
        items: n rows with the columns ``key``, ``group``, ``metadata`` (JSON) and ``modality``, all strings.
        saved: called with the vectors and items after each change, to store them. None: they are in memory alone.
        check: called before the first use, to check the file of the vectors. None: they are not in a file.
        where: what has the vectors, for the error about their lengths.

    Examples:
        >>> rows = {"key": ["a", "b"], "group": ["a", "b"], "metadata": ["{}"] * 2, "modality": ["text"] * 2}
        >>> engine = ExactEngine(np.eye(2, dtype=np.float32), pa.table(rows))
        >>> [(found.key, round(found.score, 2)) for found in engine.nearest(np.float32([[0.6, 0.8]]), count=2)[0]]
        [('b', 0.8), ('a', 0.6)]
    """

    name, grouped = "exact", True

    def __init__(
        self,
        vectors: np.ndarray,
        items: pa.Table,
        saved: Callable[[np.ndarray, pa.Table], None] | None = None,
        check: Callable[[], None] | None = None,
        where: str = "The index",
    ) -> None:
        self._unchecked, self._saved, self._check_file, self._where = _Stored(vectors, items), saved, check, where
        self._is_checked = False
        self.dim = vectors.shape[1]

    @property
    def _stored(self) -> _Stored:
        """What is stored; the vectors are checked before the first use."""
        if not self._is_checked:
            self.check()
        return self._unchecked

    def check(self) -> None:
        """Check the vectors, as is otherwise done before their first use.

        Raises:
            MultimodalError: the file is damaged, or a vector is not finite or not of unit length.
        """
        if self._check_file is not None:
            self._check_file()
        vectors = self._unchecked.vectors
        if len(wrong := not_unit(vectors)):
            raise MultimodalError(
                f"{self._where} has {len(wrong):,} vectors that are not of unit length, the first in row {wrong[0]}"
                f" ({describe_vector(vectors[wrong[0]])}); build it again."
            )
        self._is_checked = True

    @property
    def modalities(self) -> list[str]:
        """The modalities of the stored vectors."""
        return self._unchecked.modalities

    @property
    def columns(self) -> list[str]:
        """The columns of the metadata."""
        return list(self._unchecked.cells)

    def count(self, modality: str) -> int:
        """Return the number of stored vectors of a modality.

        Args:
            modality: one of ``modalities``.
        """
        return int(np.count_nonzero(self._unchecked.of_modality(modality)))

    def kinds(self, column: str) -> set[Kind]:
        """Return what ranges of a column can compare, as ``Engine.kinds`` defines it.

        Args:
            column: one of ``columns``.
        """
        return {kind for of_column, kind in self._unchecked.compared if of_column == column}

    def nearest(
        self,
        queries: np.ndarray,
        count: int,
        modality: str | None = None,
        where: Where | None = None,
        exact: bool = True,
    ) -> list[list[Found]]:
        """Find the stored vectors nearest to each query, as ``Engine.nearest`` defines it.

        Args:
            queries: ``(q, dim)`` float32 of unit length.
            count: number of vectors to find for each query, at least 1; ties with the last are returned too.
            modality: search only the vectors of this modality. None: all.
            where: search only the rows that meet these conditions.
            exact: it always is.

        Returns:
            For each query, what is found, the best first; equal scores in the order in which they are stored.
        """
        stored = self._stored
        among = None if modality is None and where is None else np.flatnonzero(stored.chosen(modality, where, None))
        searched = len(stored.vectors) if among is None else len(among)
        at_once = max(1, SCORES // max(1, searched))
        found = []
        for start in range(0, len(queries), at_once):
            for scores in _scores(stored.vectors, queries[start : start + at_once], among):
                best = _best(scores, count)
                found.append(stored.found(best if among is None else among[best], scores[best]))
        return found

    def nearest_by_words(
        self, query: np.ndarray, words: str, count: int, modality: str | None = None, where: Where | None = None
    ) -> list[Found]:
        """Refuse the search by words, which this engine does not have.

        Args:
            query: the vector.
            words: the words.
            count: number of rows.
            modality: the modality to search.
            where: conditions.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "This index is searched exactly, by vectors alone: for hybrid search build it by `multimodal index"
            " EMBEDDINGS --out INDEX`, without `--engine exact`."
        )

    def upsert(self, parts: Iterable[pa.Table]) -> None:
        """Add rows, in the place of those that have their keys.

        Args:
            parts: parts of embeddings, see ``multimodal.search.embed``; vectors are float32 of unit length.
        """
        stored = self._stored
        kept = np.ones(len(stored.vectors), bool)
        vectors, items = [], []
        for part in parts:
            kept &= ~stored.with_keys(part["key"])
            modalities = modalities_of(part)
            for piece, described in pieces_of(part, modalities, self.dim):
                vectors.append(piece)
                items.append(described)
        self._keep(kept, vectors, items)

    def remove(self, keys: Sequence[str]) -> int:
        """Remove rows, and return how many were there.

        Args:
            keys: the keys of the rows.
        """
        gone = self._stored.with_keys(pa.array(keys, pa.string()))
        removed = len(self._stored.items["key"].filter(pa.array(gone)).unique())
        if removed:
            self._keep(~gone, [], [])
        return removed

    def _keep(self, kept: np.ndarray, vectors: list[np.ndarray], items: list[pa.Table]) -> None:
        old = self._stored
        new = _Stored(
            np.concatenate([old.vectors[kept], *vectors]),
            pa.concat_tables([old.items.select(ITEM_SCHEMA.names).filter(pa.array(kept)), *items]),
        )
        if self._saved is not None:
            self._saved(new.vectors, new.items)
        self._unchecked = new  # at once, as other threads may be searching

    def select(
        self, modality: str | None = None, where: Where | None = None, keys: Sequence[str] | None = None
    ) -> tuple[np.ndarray, pa.Table]:
        """Return stored vectors and their descriptions, as ``Engine.select`` defines it.

        Args:
            modality: only the vectors of this modality. None: all.
            where: only the rows that meet these conditions.
            keys: only the rows with these keys.
        """
        stored = self._stored
        if modality is None and where is None and keys is None:
            return stored.vectors, stored.items
        rows = np.flatnonzero(stored.chosen(modality, where, keys))
        return stored.vectors[rows], stored.items.take(rows)

    def facets(self, column: str, where: Where | None = None, limit: int = 20) -> dict[str, int]:
        """Return the most frequent values of a column, with their numbers of rows.

        Args:
            column: one of ``columns``.
            where: only the rows that meet these conditions.
            limit: number of values.
        """
        stored = self._stored
        rows = np.flatnonzero(stored.chosen(None, where, None))
        first_of_key = np.unique(stored.keys[rows], return_index=True)[1]
        cells = stored.cells[column][rows[first_of_key]]
        counts = Counter(cell for cell in cells.tolist() if cell is not None)
        return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:limit])

    def close(self) -> None:
        """Release nothing: the files are read by any number of processes."""


class _Stored:
    """Vectors and the rows that describe them; not changed, so that threads may search while others replace it."""

    def __init__(self, vectors: np.ndarray, items: pa.Table) -> None:
        self.vectors, self.items = vectors, items.combine_chunks()  # or each row that is taken looks for its chunk
        modality = items["modality"].combine_chunks().dictionary_encode()
        self._modality, self.modalities = modality.indices.to_numpy(), modality.dictionary.to_pylist()

    def of_modality(self, modality: str) -> np.ndarray:
        return self._modality == self.modalities.index(modality)

    def with_keys(self, keys: pa.Array | pa.ChunkedArray) -> np.ndarray:
        return pc.is_in(self.items["key"], value_set=keys).to_numpy()

    def chosen(self, modality: str | None, where: Where | None, keys: Sequence[str] | None) -> np.ndarray:
        """Return which vectors meet the conditions, ``(n,)`` bool."""
        chosen = np.ones(len(self.vectors), bool) if modality is None else self.of_modality(modality)
        if keys is not None:
            chosen = chosen & self.with_keys(pa.array(keys, pa.string()))
        for column, wanted in (where or {}).items():
            chosen = chosen & (
                self.within(column, wanted) if isinstance(wanted, Range) else np.isin(self.cells[column], wanted)
            )
        return chosen

    def within(self, column: str, wanted: Range) -> np.ndarray:
        """Return which rows have a number or date in a range, ``(n,)`` bool."""
        if (cells := self.compared.get((column, wanted.kind))) is None:
            return np.zeros(len(self.vectors), bool)
        within = np.ones(len(cells), bool)
        for name, bound in wanted.bounds.items():
            within &= COMPARE[name](cells, bound)  # NaN is in no range
        return within

    @property
    def cells(self) -> dict[str, np.ndarray]:
        """Column of the metadata -> the text of each row, or None."""
        return self._read[0]

    @property
    def compared(self) -> dict[tuple[str, Kind], np.ndarray]:
        """Column and kind, of those that a row has -> the number or date of each row, float64, or NaN."""
        return self._read[1]

    @cached_property
    def _read(self) -> tuple[dict[str, np.ndarray], dict[tuple[str, Kind], np.ndarray]]:
        rows = [json.loads(text) for text in self.items["metadata"].to_pylist()]
        cells: dict[str, np.ndarray] = {}
        compared: dict[tuple[str, Kind], np.ndarray] = {}
        for name in dict.fromkeys(name for row in rows for name in row):
            cells[name] = np.array([filter_text(row.get(name)) for row in rows], dtype=object)
            for number, row in enumerate(rows):
                if (found := comparable(row.get(name))) is not None:
                    values = compared.setdefault((name, found[0]), np.full(len(rows), np.nan))
                    values[number] = found[1]
        return cells, compared

    @cached_property
    def keys(self) -> np.ndarray:
        return self.items["key"].combine_chunks().dictionary_encode().indices.to_numpy()

    def found(self, rows: np.ndarray, scores: np.ndarray) -> list[Found]:
        items = self.items.take(pa.array(rows)).to_pydict()
        columns = (items[name] for name in ("key", "group", "modality"))
        return [Found(*item) for item in zip(*columns, scores.tolist(), items["metadata"], strict=True)]


def _scores(vectors: np.ndarray, queries: np.ndarray, among: np.ndarray | None) -> np.ndarray:
    """Return the cosines ``(q, m)`` of queries and stored vectors; those ``among`` them are copied a block at a time."""
    if among is None:
        scores = queries @ vectors.T
    else:
        scores = np.empty((len(queries), len(among)), np.float32)
        for start in range(0, len(among), GATHERED_ROWS):
            block = slice(start, start + GATHERED_ROWS)
            scores[:, block] = queries @ vectors[among[block]].T
    return np.clip(scores, -1, 1, out=scores)


def _best(scores: np.ndarray, count: int) -> np.ndarray:
    """Return the positions of the ``count`` highest scores and of ties with the last, the highest first."""
    best = np.arange(len(scores))
    if count < len(scores):
        best = np.flatnonzero(scores >= np.partition(scores, -count)[-count])
    return best[np.lexsort((best, -scores[best]))]
