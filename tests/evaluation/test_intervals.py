"""Intervals hold as often as they say, and tests of differences err as seldom."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from multimodal.evaluation import intervals
from multimodal.evaluation.intervals import bootstrap, compare_paired


def test_the_interval_is_that_of_scipy() -> None:
    values = np.random.default_rng(0).random(200) ** 3
    found = bootstrap({"mrr": values}, np.arange(200), resamples=20_000)["mrr"]
    expected = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.003)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        found = bootstrap({"hit": (rng.random(150) < 0.3).astype(float)}, np.arange(150), resamples=400, seed=trial)
        covered += found["hit"].low <= 0.3 <= found["hit"].high
    assert 0.91 <= covered / 300 <= 0.98


def test_queries_of_one_group_count_as_one() -> None:
    hits = np.random.default_rng(0).random(100) < 0.5
    alone = bootstrap({"hit": hits.astype(float)}, np.arange(100))["hit"]
    copied = bootstrap({"hit": np.repeat(hits, 10).astype(float)}, np.repeat(np.arange(100), 10))["hit"]
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))


def test_groups_of_unequal_size_keep_the_mean_over_queries() -> None:
    found = bootstrap({"hit": np.array([1.0, 1.0, 1.0, 0.0])}, np.array([0, 0, 0, 1]))["hit"]
    assert found.mean == 0.75
    assert (found.low, found.high) == (0.0, 1.0)


def test_blocks_change_nothing_and_one_group_has_no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"hit": np.random.default_rng(0).random(50)}
    whole = bootstrap(values, np.arange(50))["hit"]
    monkeypatch.setattr(intervals, "BLOCK", 64)
    blocked = bootstrap(values, np.arange(50))["hit"]
    assert (blocked.low, blocked.high) == pytest.approx((whole.low, whole.high))
    alone = bootstrap(values, np.zeros(50))["hit"]
    assert alone.low == pytest.approx(alone.mean)
    assert alone.high == pytest.approx(alone.mean)


def test_models_that_do_not_differ_are_seldom_said_to() -> None:
    rng = np.random.default_rng(0)
    p_values = [
        compare_paired({"mrr": a}, {"mrr": b}, np.arange(40), resamples=200, seed=trial)["mrr"].p_value
        for trial, (a, b) in enumerate(rng.random((300, 2, 40)))
    ]
    assert 0.02 <= np.mean(np.array(p_values) <= 0.05) <= 0.09


def test_the_p_value_is_that_of_all_exchanges() -> None:
    a, b = np.random.default_rng(3).random((2, 10))
    exact = stats.permutation_test(
        (b - a,), lambda d, axis: np.mean(d, axis=axis), permutation_type="samples", vectorized=True
    )
    found = compare_paired({"mrr": a}, {"mrr": b}, np.arange(10), resamples=20_000)["mrr"]
    assert found.p_value == pytest.approx(exact.pvalue, abs=0.02)
    assert found.mean == pytest.approx((b - a).mean())


def test_a_measure_of_one_model_only_is_left_out() -> None:
    one = {"mrr": np.ones(5), "map": np.ones(5)}
    assert set(compare_paired(one, {"mrr": np.zeros(5)}, np.arange(5))) == {"mrr"}
