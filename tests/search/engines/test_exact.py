"""Exact search equals a full sort of the scores in numpy, in blocks of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.core.errors import UsageError
from multimodal.search.engines import exact
from multimodal.search.engines.engine import Found
from multimodal.search.engines.exact import ExactEngine

AXES = [[1.0, 0, 0], [0, -1.0, 0], [0.6, 0.8, 0], [0, 0.6, -0.8]]  # of unit length, with products that are often equal


def engine_of(vectors: np.ndarray) -> ExactEngine:
    """Return an engine whose keys are the row numbers."""
    keys = [str(row) for row in range(len(vectors))]
    metadata = [f'{{"row": {row}}}' for row in range(len(vectors))]
    items = {"key": keys, "group": keys, "metadata": metadata, "modality": ["text"] * len(vectors)}
    return ExactEngine(vectors, pa.table(items, exact.ITEM_SCHEMA))


def reference(vectors: np.ndarray, query: np.ndarray, count: int, rows: np.ndarray) -> list[tuple[int, float]]:
    """Sort all rows by score, then by row; keep ``count`` and those that score the same as the last."""
    scored = [(float(np.float32(np.clip(np.dot(vectors[row], query), -1, 1))), int(row)) for row in rows]
    scored.sort(key=lambda pair: (-pair[0], pair[1]))
    return [(row, score) for score, row in scored if score >= scored[:count][-1][0]]


def pairs(found: list[Found]) -> list[tuple[int, float]]:
    return [(int(one.key), one.score) for one in found]


@st.composite
def searches(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int, np.ndarray | None]:
    """Draw unit vectors, queries, a count and rows, with products that are often equal."""
    n, q = draw(st.integers(1, 12)), draw(st.integers(1, 4))
    vectors = draw(st.lists(st.sampled_from(AXES), min_size=n, max_size=n))
    queries = draw(st.lists(st.sampled_from(np.eye(3).tolist()), min_size=q, max_size=q))
    among = draw(st.none() | st.sets(st.integers(0, n - 1), min_size=1).map(lambda rows: np.array(sorted(rows))))
    return np.array(vectors, np.float32), np.array(queries, np.float32), draw(st.integers(1, 15)), among


@given(searches(), st.sampled_from([1, 5, 1 << 25]))
@settings(deadline=None, max_examples=200)
def test_the_nearest_rows_equal_those_of_a_full_sort(search: Any, scores_in_memory: int) -> None:
    vectors, queries, count, among = search
    rows = np.arange(len(vectors)) if among is None else among
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "SCORES", scores_in_memory)  # blocks of one or several queries
        where = None if among is None else {"row": tuple(str(row) for row in among)}
        found = engine_of(vectors).nearest(queries, count, where=where)
    assert [pairs(hits) for hits in found] == [reference(vectors, query, count, rows) for query in queries]


def test_no_score_is_above_one() -> None:
    vector = np.full((1, 3), np.sqrt(np.float32(1 / 3)) * np.float32(1 + 1e-6), dtype=np.float32)
    assert (vector @ vector.T).max() > 1
    assert [one.score for one in engine_of(vector).nearest(vector, 1)[0]] == [1.0]


def test_without_vectors_or_queries_nothing_is_found() -> None:
    assert engine_of(np.zeros((0, 3), np.float32)).nearest(np.eye(1, 3, dtype=np.float32), 5) == [[]]
    assert engine_of(np.eye(3, dtype=np.float32)).nearest(np.zeros((0, 3), np.float32), 5) == []


def test_vectors_of_a_memory_mapped_file_are_searched(tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", np.eye(4, dtype=np.float32))
    engine = engine_of(np.load(tmp_path / "vectors.npy", mmap_mode="r"))
    (found,) = engine.nearest(np.array([[0, 0.6, 0, 0.8]], np.float32), 1, where={"row": ("0", "1", "2")})
    assert pairs(found) == [(1, pytest.approx(0.6))]


def test_words_are_refused() -> None:
    with pytest.raises(UsageError, match="searched exactly, by vectors alone"):
        engine_of(np.eye(3, dtype=np.float32)).nearest_by_words(np.eye(3, dtype=np.float32)[0], "cup", 1)
