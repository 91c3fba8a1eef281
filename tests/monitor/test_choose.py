"""Rows are chosen as the formulas say, compared with transcriptions that look at every pair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.core.errors import UsageError
from multimodal.monitor import choose as module
from multimodal.monitor.choose import By, choose, distances_to, margins, quantiles


def unit(seed: int, rows: int, width: int = 4) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return max(0.0, 1 - float(a.astype(np.float64) @ b.astype(np.float64)))


def k_center(vectors: np.ndarray, labelled: np.ndarray, count: int) -> list[int]:
    """Transcribe algorithm 1 of Sener and Savarese 2018: u = argmax_i min_{j in s} distance(i, j)."""
    chosen: list[int] = []
    while len(chosen) < min(count, len(vectors)):
        centres = [*labelled, *vectors[chosen]]
        of_row = {
            i: min((distance(vectors[i], c) for c in centres), default=2.0)
            for i in range(len(vectors))
            if i not in chosen
        }
        chosen.append(max(of_row, key=lambda i: (round(of_row[i], 5), -i)))
    return chosen


def facility_location(vectors: np.ndarray, labelled: np.ndarray, weights: np.ndarray, count: int) -> list[int]:
    """Compute every gain in every step."""
    chosen: list[int] = []
    between = np.array([[distance(a, b) for b in vectors] for a in vectors])
    nearest = np.array([min((distance(v, c) for c in labelled), default=2.0) for v in vectors])
    while len(chosen) < min(count, len(vectors)):
        gains = np.maximum(0, nearest - between).sum(axis=1) * weights
        gains[chosen] = -1
        chosen.append(int(gains.argmax()))
        nearest = np.minimum(nearest, between[chosen[-1]])
    return chosen


@given(st.integers(0, 10_000), st.integers(1, 25), st.integers(0, 6), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_diverse_rows_are_those_of_k_center_greedy(seed: int, rows: int, labelled: int, count: int) -> None:
    vectors, given_rows = unit(seed, rows), unit(seed + 1, labelled)
    found = choose(vectors, given_rows, np.zeros(rows), count, "diverse")
    assert found.rows.tolist() == k_center(vectors, given_rows, count)


@given(st.integers(0, 10_000), st.integers(1, 25), st.integers(0, 6), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_covered_rows_are_those_with_the_largest_gains(seed: int, rows: int, labelled: int, count: int) -> None:
    vectors, given_rows = unit(seed, rows), unit(seed + 1, labelled)
    uncertainty = np.random.default_rng(seed).random(rows)
    of_way: dict[By, np.ndarray] = {"covered": np.ones(rows), "all": quantiles(uncertainty)}
    for by, weights in of_way.items():
        found = choose(vectors, given_rows, uncertainty, count, by)
        expected = facility_location(vectors, given_rows, weights, count)
        rows_found = found.rows.tolist()
        assert rows_found == expected or _gains_tie(vectors, given_rows, weights, rows_found, expected)


def _gains_tie(
    vectors: np.ndarray, labelled: np.ndarray, weights: np.ndarray, one: list[int], other: list[int]
) -> bool:
    """Whether two orders have equal gains up to rounding where they differ, as gains of 0 do."""
    between = np.array([[distance(a, b) for b in vectors] for a in vectors])
    totals = []
    for order in (one, other):
        nearest = np.array([min((distance(v, c) for c in labelled), default=2.0) for v in vectors])
        gains = []
        for row in order:
            gains.append(np.maximum(0, nearest - between[row]).sum() * weights[row])
            nearest = np.minimum(nearest, between[row])
        totals.append(gains)
    return bool(np.allclose(*totals, atol=1e-5)) and len({*one}) == len(one)


def test_every_row_is_chosen_once_whatever_the_way() -> None:
    vectors = np.concatenate([unit(0, 6)] * 3)  # equal rows
    for by in ("all", "covered", "diverse", "uncertain", "random"):
        found = choose(vectors, vectors[:1], np.zeros(18), 100, by)  # type: ignore[arg-type]
        assert sorted(found.rows.tolist()) == [*range(18)]


def test_the_distance_is_that_to_what_was_paired_or_chosen_before() -> None:
    vectors, labelled = unit(3, 12), unit(4, 3)
    for by in ("all", "uncertain", "random"):
        found = choose(vectors, labelled, np.arange(12.0), 12, by)  # type: ignore[arg-type]
        for place, row in enumerate(found.rows.tolist()):
            before = [*labelled, *vectors[found.rows[:place]]]
            assert found.distances[place] == pytest.approx(min(distance(vectors[row], v) for v in before), abs=1e-5)


def test_uncertain_rows_come_first_and_random_ones_depend_on_the_seed() -> None:
    vectors = unit(0, 9)
    uncertainty = np.random.default_rng(0).random(9)
    found = choose(vectors, vectors[:0], uncertainty, 9, "uncertain")
    assert found.rows.tolist() == np.argsort(-uncertainty).tolist()
    orders = {tuple(choose(vectors, vectors[:0], uncertainty, 9, "random", seed=n).rows.tolist()) for n in range(4)}
    assert len(orders) == 4


def test_an_outlier_is_diverse_but_does_not_cover_much() -> None:
    crowd = np.repeat(np.array([[1.0, 0, 0]]), 30, axis=0) + np.random.default_rng(0).normal(0, 0.05, (30, 3))
    outlier = np.array([[0, 0, -1.0]])
    vectors = np.concatenate([crowd, outlier])
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    labelled = np.array([[0, 1.0, 0]], dtype=np.float32)
    assert choose(vectors, labelled, np.zeros(31), 1, "covered").rows[0] < 30
    ways: list[By] = ["diverse", "all"]
    first = [int(choose(vectors, labelled, np.zeros(31), 1, way).rows[0]) for way in ways]
    assert first[1] < 30


def test_of_many_rows_a_sample_is_covered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REFERENCE", 10)
    found = choose(unit(0, 50), unit(1, 2), np.zeros(50), 5, "covered")
    assert len({*found.rows.tolist()}) == 5


@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(1, 9), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_margins_are_those_of_sorted_scores(seed: int, queries: int, candidates: int, groups: int) -> None:
    x, y = unit(seed, queries), unit(seed + 1, candidates)
    of_group = np.random.default_rng(seed).integers(0, groups, candidates)
    found = margins(x, y, of_group)
    for query, margin in zip(x, found, strict=True):
        best = sorted((max(float(v @ query) for v in y[of_group == g]) for g in np.unique(of_group)), reverse=True)
        assert np.isnan(margin) if len(best) < 2 else margin == pytest.approx(best[0] - best[1], abs=1e-5)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, groups = unit(0, 30), unit(1, 20), np.arange(20) // 2
    before = margins(x, y, groups), distances_to(x, y), choose(x, y, np.arange(30.0), 9).rows
    monkeypatch.setattr(module, "BLOCK", 50)
    after = margins(x, y, groups), distances_to(x, y), choose(x, y, np.arange(30.0), 9).rows
    for one, other in zip(before, after, strict=True):
        assert np.allclose(one, other, atol=1e-6)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(UsageError, match=r"there is no 'coverd'\. Did you mean 'covered'"):
        choose(unit(0, 3), unit(0, 0), np.zeros(3), 1, "coverd")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="at least 1"):
        choose(unit(0, 3), unit(0, 0), np.zeros(3), 0)
