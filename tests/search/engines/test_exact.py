"""Exact search equals a full sort of the scores in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.search.engines import exact
from multimodal.search.engines.exact import ExactEngine


def reference(vectors: np.ndarray, query: np.ndarray, count: int, rows: np.ndarray) -> list[tuple[int, float]]:
    """Sort all rows by score, then by row; keep ``count`` and those that score the same as the last."""
    scored = [(float(np.float32(np.clip(np.dot(vectors[row], query), -1, 1))), int(row)) for row in rows]
    scored.sort(key=lambda pair: (-pair[0], pair[1]))
    return [(row, score) for score, row in scored if score >= scored[:count][-1][0]]


def pairs(found: tuple[np.ndarray, np.ndarray]) -> list[tuple[int, float]]:
    return list(zip(found[0].tolist(), found[1].tolist(), strict=True))


@st.composite
def searches(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int, np.ndarray | None]:
    """Draw vectors, queries, a count and rows, with numbers whose products are exact and often equal."""
    numbers = st.sampled_from([-0.5, -0.25, 0.0, 0.125, 0.25, 0.5])
    n, q, dim = draw(st.integers(1, 12)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    vectors = draw(st.lists(st.lists(numbers, min_size=dim, max_size=dim), min_size=n, max_size=n))
    queries = draw(st.lists(st.lists(numbers, min_size=dim, max_size=dim), min_size=q, max_size=q))
    among = draw(st.none() | st.sets(st.integers(0, n - 1), min_size=1).map(lambda rows: np.array(sorted(rows))))
    return np.array(vectors, np.float32), np.array(queries, np.float32), draw(st.integers(1, 15)), among


@given(searches(), st.sampled_from([1, 5, 1 << 25]))
@settings(deadline=None, max_examples=200)
def test_the_nearest_rows_equal_those_of_a_full_sort(search: Any, scores_in_memory: int) -> None:
    vectors, queries, count, among = search
    rows = np.arange(len(vectors)) if among is None else among
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "SCORES", scores_in_memory)  # blocks of one or several queries
        found = ExactEngine(vectors).nearest(queries, count, among)
    assert [pairs(hits) for hits in found] == [reference(vectors, query, count, rows) for query in queries]


def test_unit_vectors_are_ranked_by_cosine() -> None:
    random = np.random.default_rng(0)
    vectors, queries = (random.normal(size=(n, 16)).astype(np.float32) for n in (500, 20))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    cosines = queries.astype(np.float64) @ vectors.astype(np.float64).T
    for (rows, scores), expected in zip(ExactEngine(vectors).nearest(queries, 10), cosines, strict=True):
        assert rows.tolist() == np.argsort(-expected)[:10].tolist()
        np.testing.assert_allclose(scores, np.sort(expected)[::-1][:10], atol=1e-6)
        assert (rows.dtype, scores.dtype) == (np.int64, np.float32)


def test_no_score_is_above_one() -> None:
    vector = np.full((1, 3), np.sqrt(np.float32(1 / 3)) * np.float32(1 + 1e-6), dtype=np.float32)
    assert (vector @ vector.T).max() > 1
    ((_, scores),) = ExactEngine(vector).nearest(vector, 1)
    assert scores.tolist() == [1.0]


def test_without_vectors_or_queries_nothing_is_found() -> None:
    ((rows, scores),) = ExactEngine(np.zeros((0, 3), np.float32)).nearest(np.eye(1, 3, dtype=np.float32), 5)
    assert (len(rows), len(scores)) == (0, 0)
    assert ExactEngine(np.eye(3, dtype=np.float32)).nearest(np.zeros((0, 3), np.float32), 5) == []


def test_vectors_of_a_memory_mapped_file_are_searched(tmp_path: Any) -> None:
    np.save(tmp_path / "vectors.npy", np.eye(4, dtype=np.float32))
    engine = ExactEngine(np.load(tmp_path / "vectors.npy", mmap_mode="r"))
    ((rows, scores),) = engine.nearest(np.array([[0, 0.6, 0, 0.8]], np.float32), 1, among=np.array([0, 1, 2]))
    assert (rows.tolist(), scores.tolist()) == ([1], [pytest.approx(0.6)])
