"""Neighbours against scikit-learn and transcriptions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from multimodal.monitor.measures.kernels import squared_distances
from multimodal.monitor.measures.neighbours import (
    distances_to_reference,
    nearest_rows,
    outside_shares,
    overlap,
    same_set_shares,
)


def test_nearest_rows_are_scikit_learns() -> None:
    x = np.random.default_rng(0).normal(size=(80, 4))
    expected = NearestNeighbors(n_neighbors=5).fit(x).kneighbors(return_distance=False)
    found = nearest_rows(squared_distances(x), 5)
    assert [set(row) for row in found] == [set(row) for row in expected]


def test_there_are_at_most_all_others() -> None:
    assert nearest_rows(squared_distances(np.arange(3.0)[:, None]), 5).shape == (3, 2)
    assert nearest_rows(np.zeros((1, 1)), 5).shape == (1, 0)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 10), st.integers(2, 10), st.integers(0, 1000))
def test_the_share_of_the_own_set_and_the_overlap(n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    nearest = nearest_rows(squared_distances(rng.normal(size=(n + m, 3))), 3)
    current = rng.permutation(np.arange(n + m) >= n)
    shares = [np.mean([current[other] == current[row] for other in nearest[row]]) for row in range(n + m)]
    expected = np.mean(
        [np.mean([s for s, c in zip(shares, current, strict=True) if c == side]) for side in (True, False)]
    )
    assert same_set_shares(nearest, np.stack([current, ~current])) == pytest.approx([expected, expected])
    crossing = (n / (n + m - 1) + m / (n + m - 1)) / 2
    assert overlap(nearest, current) == pytest.approx((1 - expected) / crossing)


def test_the_overlap_of_random_sets_is_1() -> None:
    rng = np.random.default_rng(0)
    nearest = nearest_rows(squared_distances(rng.normal(size=(2000, 8))))
    assert overlap(nearest, np.arange(2000) < 700) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("k", [1, 3, 50])
def test_distances_to_the_reference_are_scikit_learns(k: int) -> None:
    rng = np.random.default_rng(0)
    reference, rows = rng.normal(size=(40, 4)), rng.normal(size=(300, 4))
    nearest = NearestNeighbors(n_neighbors=min(k, 39)).fit(reference)
    expected = nearest.kneighbors(rows)[0][:, -1]
    assert distances_to_reference(rows, reference, np.full(300, -1), k) == pytest.approx(expected)
    own = nearest.kneighbors()[0][:, -1]  # without themselves
    assert distances_to_reference(reference, reference, np.arange(40), k) == pytest.approx(own, abs=1e-6)


def test_the_same_thing_is_not_its_own_neighbour() -> None:
    reference = np.array([[0.0], [10.0], [20.0]])
    assert distances_to_reference(np.array([[0.1]]), reference, np.array([0]), 1) == pytest.approx([9.9])


def test_outside_are_as_many_as_the_level_says() -> None:
    rng = np.random.default_rng(0)
    reference, current = rng.normal(size=(2, 2000, 4))
    own = distances_to_reference(reference, reference, np.arange(2000))
    of_current = distances_to_reference(current, reference, np.full(2000, -1))
    shares = outside_shares(of_current, own)
    assert shares["95"] == pytest.approx(0.05, abs=0.015)
    assert shares["99"] == pytest.approx(0.01, abs=0.007)
    assert outside_shares(of_current + 100, own) == {"95": 1, "99": 1}
