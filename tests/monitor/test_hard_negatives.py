"""Hard negatives are the nearest candidates that cannot be true of their row, compared with a loop over all candidates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.monitor import hard_negatives as module
from multimodal.monitor.hard_negatives import NONE, exact_nearest, hard_negatives, highest_allowed


def unit(seed: int, rows: int, width: int = 3) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def by_hand(
    query: np.ndarray, group: int, positive: float, candidates: np.ndarray, groups: np.ndarray, ratio: float
) -> list[tuple[int, float]]:
    """Return the best allowed candidate of each other group, the best first."""
    limit = positive * ratio if positive >= 0 else positive * (2 - ratio)
    best: dict[int, tuple[int, float]] = {}
    for number, (candidate, of) in enumerate(zip(candidates, groups.tolist(), strict=True)):
        score = float(np.float32(candidate @ query))
        if of != group and score <= limit and score > best.get(of, (0, -9.0))[1]:
            best[of] = number, score
    return sorted(best.values(), key=lambda one: -one[1])


@given(
    st.integers(0, 10_000),
    st.integers(1, 30),
    st.integers(1, 8),
    st.integers(1, 3),
    st.integers(0, 2),
    st.floats(0.2, 1),
)
@settings(max_examples=80, deadline=None)
def test_they_are_the_best_allowed_ones_of_other_groups(
    seed: int, rows: int, kinds: int, count: int, skip: int, ratio: float
) -> None:
    rng = np.random.default_rng(seed)
    candidates, groups = unit(seed, rows), rng.integers(0, kinds, rows)
    queries, own = unit(seed + 1, 5), rng.integers(0, kinds, 5)
    positives = rng.uniform(-0.5, 1, 5).astype(np.float32)
    found, scores = hard_negatives(queries, own, positives, groups, exact_nearest(candidates), count, ratio, skip)
    for n in range(5):
        expected = by_hand(queries[n], int(own[n]), float(positives[n]), candidates, groups, ratio)[skip : skip + count]
        numbers = found[n][found[n] != NONE].tolist()
        assert scores[n][: len(numbers)] == pytest.approx([score for _, score in expected], abs=1e-5)
        assert numbers == [number for number, _ in expected]


def test_false_negatives_are_filtered_by_group_and_by_the_score_of_the_own_value() -> None:
    """The same product in another photo (its group), and the same product under another name (a score as high)."""
    candidates = np.array([[1, 0], [0.999, 0.0447], [0.995, 0.0999], [0.6, 0.8]], dtype=np.float32)
    groups = np.array([0, 0, 1, 2])
    search = exact_nearest(candidates)
    query, own, positive = candidates[:1], groups[:1], np.array([0.999])
    assert hard_negatives(query, own, positive, groups, search)[0].tolist() == [[3]]
    assert hard_negatives(query, own, positive, groups, search, ratio=1.0)[0].tolist() == [[2]]


def test_limits_are_below_the_positive_score_whatever_its_sign() -> None:
    positives = np.array([0.9, 0.0, -0.4])
    assert (highest_allowed(positives, 0.95) <= positives).all()
    assert highest_allowed(positives, 1.0).tolist() == positives.tolist()


def test_candidates_that_a_search_does_not_know_are_skipped() -> None:
    def search(queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        return np.tile([[NONE, 1]], (len(queries), 1)), np.tile(np.array([[0.5, 0.4]], np.float32), (len(queries), 1))

    found, scores = hard_negatives(unit(0, 2), np.array([0, 1]), np.ones(2), np.array([0, 1]), search)
    assert found.tolist() == [[1], [NONE]]
    assert scores[0, 0] == pytest.approx(0.4)


@given(st.integers(0, 1000), st.integers(1, 40), st.integers(1, 50))
@settings(max_examples=40, deadline=None)
def test_the_exact_search_sorts_all_scores(seed: int, rows: int, count: int) -> None:
    candidates, queries = unit(seed, rows), unit(seed + 1, 6)
    found, scores = exact_nearest(candidates)(queries, count)
    all_scores = queries @ candidates.T
    assert found.tolist() == np.argsort(-all_scores, axis=1, kind="stable")[:, :count].tolist()
    assert np.allclose(scores, np.take_along_axis(all_scores, found, axis=1), atol=1e-6)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates, queries = unit(0, 20), unit(1, 15)
    before = exact_nearest(candidates)(queries, 5)
    monkeypatch.setattr(module, "BLOCK", 45)
    after = exact_nearest(candidates)(queries, 5)
    assert np.array_equal(before[0], after[0])
