"""Kernel differences against transcriptions of their formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist

from multimodal.monitor.measures.kernels import (
    centred,
    gaussian_kernel,
    kernel_differences,
    linear_kernel,
    quadratic_kernel,
    squared_distances,
)

sizes = st.tuples(st.integers(2, 12), st.integers(2, 12), st.integers(1, 6), st.integers(0, 1000))


def drawn(size: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    n, m, dim, seed = size
    x = np.random.default_rng(seed).normal(size=(n + m, dim))
    return centred(x.astype(np.float32)).astype(float), np.arange(n + m) >= n


@settings(max_examples=40, deadline=None)
@given(sizes)
def test_the_linear_kernel_is_the_distance_of_the_means(size: tuple[int, int, int, int]) -> None:
    x, current = drawn(size)
    expected = np.sum((x[current].mean(axis=0) - x[~current].mean(axis=0)) ** 2)
    assert kernel_differences(linear_kernel(x), current[None]) == pytest.approx([expected], rel=1e-4, abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(sizes)
def test_the_quadratic_kernel_is_the_distance_of_the_second_moments(size: tuple[int, int, int, int]) -> None:
    x, current = drawn(size)
    moments = [of.T @ of / len(of) for of in (x[current], x[~current])]
    expected = np.linalg.norm(moments[0] - moments[1]) ** 2
    assert kernel_differences(quadratic_kernel(x), current[None]) == pytest.approx([expected], rel=1e-4, abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(sizes)
def test_the_gaussian_kernel_gives_the_biased_mmd(size: tuple[int, int, int, int]) -> None:
    x, current = drawn(size)
    width = np.median(pdist(x) ** 2)

    def mean(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(-(cdist(a, b) ** 2) / width).mean())

    a, b = x[current], x[~current]
    expected = mean(a, a) + mean(b, b) - 2 * mean(a, b)
    found = kernel_differences(gaussian_kernel(squared_distances(x)), current[None])
    assert found == pytest.approx([expected], rel=1e-3, abs=1e-5)


def test_distances_are_scipys() -> None:
    x = np.random.default_rng(0).normal(size=(30, 5))
    assert squared_distances(x) == pytest.approx(cdist(x, x) ** 2, abs=1e-5)


def test_many_assignments_are_each_alone() -> None:
    rng = np.random.default_rng(0)
    kernel = linear_kernel(rng.normal(size=(12, 3)))
    sets = rng.random((3000, 12)) < 0.5
    sets = sets[sets.any(axis=1) & ~sets.all(axis=1)]
    alone = [kernel_differences(kernel, one[None])[0] for one in sets]
    assert kernel_differences(kernel, sets) == pytest.approx(alone)


def test_equal_rows_do_not_differ() -> None:
    x = np.zeros((6, 3), np.float32)
    sets = np.arange(6)[None] >= 3
    for kernel in (linear_kernel(x), quadratic_kernel(x), gaussian_kernel(squared_distances(x))):
        assert kernel_differences(kernel, sets).tolist() == [0]


def test_equal_sets_do_not_differ() -> None:
    x = np.random.default_rng(0).normal(size=(500, 64)).astype(np.float32)
    both = centred(np.concatenate([x, x]))
    sets = np.arange(1000)[None] >= 500
    for kernel in (linear_kernel(both), gaussian_kernel(squared_distances(both))):
        assert kernel_differences(kernel, sets).tolist() == [0]
