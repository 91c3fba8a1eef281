"""Nearest-neighbour tests against plain transcriptions and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from multimodal.evaluation.neighbours import analogy_accuracy, graded_pairs, triplet_accuracy


def unit(n: int, dim: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, dim))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_triplets_compare_two_cosines() -> None:
    anchors, nearer, farther = (unit(60, 5, seed) for seed in range(3))
    expected = np.mean([a @ n > a @ f for a, n, f in zip(anchors, nearer, farther, strict=True)])
    assert triplet_accuracy(anchors, nearer, farther) == pytest.approx(expected)
    assert triplet_accuracy(anchors, nearer, nearer) == 0.5


def test_correlations_are_those_of_scipy() -> None:
    x, y, grades = unit(40, 5, 0), unit(40, 5, 1), np.random.default_rng(2).integers(0, 6, 40)
    cosines = [a @ b for a, b in zip(x, y, strict=True)]
    found = graded_pairs(x, y, grades)
    assert found["spearman"] == pytest.approx(stats.spearmanr(cosines, grades)[0])  # pyright: ignore
    assert found["pearson"] == pytest.approx(np.corrcoef(cosines, grades)[0, 1])


def test_equal_grades_have_no_correlation() -> None:
    x, y = unit(4, 3, 0), unit(4, 3, 1)
    assert all(math.isnan(value) for value in graded_pairs(x, y, [2, 2, 2, 2]).values())


def test_vectors_that_are_not_finite_answer_no_analogy() -> None:
    assert analogy_accuracy(np.full((4, 2), np.nan), np.array([[1, 2, 3, 0]])) == 0


def test_analogies_leave_out_the_words_of_the_question() -> None:
    vectors = unit(30, 6, 0)
    questions = np.random.default_rng(1).integers(0, 30, (50, 4))
    right = 0
    for a, b, c, d in questions:
        wanted = vectors[b] - vectors[a] + vectors[c]
        others = [i for i in range(30) if i not in (a, b, c)]
        right += max(others, key=lambda i: wanted @ vectors[i]) == d
    assert analogy_accuracy(vectors, questions) == pytest.approx(right / 50)
