"""Permutation tests: p-values against enumeration, and the assignments that are drawn."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import permutation_test

from multimodal.monitor.measures.permutations import (
    bonferroni,
    combined_p_value,
    p_value,
    p_values,
    permuted_sets,
    swapped_sets,
)

whole = st.integers(-5, 5).map(float)


@settings(max_examples=50, deadline=None)
@given(arrays(float, st.tuples(st.integers(1, 3), st.integers(1, 20)), elements=whole))
def test_a_p_value_is_the_fraction_of_values_at_least_as_large(values: np.ndarray) -> None:
    expected = [[np.mean([other >= value for other in row]) for value in row] for row in values]
    assert p_values(values) == pytest.approx(np.array(expected))
    assert p_value(values[0]) == pytest.approx(expected[0][0])


def test_rounding_errors_are_ties() -> None:
    assert p_values(np.array([1.0, 1.0 + 1e-9, 1.0 - 1e-9])).tolist() == [1, 1, 1]
    assert p_values(np.zeros(3)).tolist() == [1, 1, 1]


@settings(max_examples=50, deadline=None)
@given(arrays(float, st.tuples(st.integers(1, 4), st.integers(2, 12)), elements=whole))
def test_the_combined_p_value_is_that_of_the_product(values: np.ndarray) -> None:
    ps = [[np.mean([other >= value for other in row]) for value in row] for row in values]
    products = np.round(np.log(ps).sum(axis=0), 6)
    assert combined_p_value(values) == pytest.approx(np.mean(products <= products[0]))


def test_all_assignments_give_scipys_exact_p_value() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=4), rng.normal(1, 1, size=5)
    pooled = np.concatenate([x, y])
    sets = [np.isin(np.arange(9), chosen) for chosen in combinations(range(9), 5)]
    sets.insert(0, sets.pop(next(i for i, s in enumerate(sets) if s[4:].all())))
    values = np.array([abs(pooled[s].mean() - pooled[~s].mean()) for s in sets])
    exact = permutation_test((x, y), lambda a, b: abs(a.mean() - b.mean()), n_resamples=9999, alternative="greater")
    assert p_value(values) == pytest.approx(exact.pvalue)


def test_permuted_sets_keep_their_size_and_reach_every_row() -> None:
    current = np.array([True] * 3 + [False] * 7)
    drawn = permuted_sets(current, 2000, np.random.default_rng(0))
    assert drawn.shape == (2001, 10)
    assert (drawn[0] == current).all()
    assert (drawn.sum(axis=1) == 3).all()
    assert drawn[1:].mean(axis=0) == pytest.approx(0.3, abs=0.05)
    assert (permuted_sets(current, 0, np.random.default_rng(0)) == current).all()


def test_swapped_sets_keep_one_of_each_pair() -> None:
    drawn = swapped_sets(4, 2000, np.random.default_rng(0))
    assert (drawn[:, :4] ^ drawn[:, 4:]).all()
    assert drawn[0].tolist() == [False] * 4 + [True] * 4
    assert drawn[1:].mean(axis=0) == pytest.approx(0.5, abs=0.05)
    patterns = {tuple(row[:4]) for row in drawn[1:]}
    assert len(patterns) == 16  # pairs are swapped independently


def test_bonferroni() -> None:
    assert bonferroni([0.02, 0.5]) == 0.04
    assert bonferroni([0.9, 0.8]) == 1
    assert bonferroni([]) == 1
