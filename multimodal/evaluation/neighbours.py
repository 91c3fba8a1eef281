"""Nearest-neighbour tests: triplets ("cat" is nearer to "dog" than to "car"), analogies, and graded pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def triplet_accuracy(anchors: np.ndarray, nearer: np.ndarray, farther: np.ndarray) -> float:
    """Return the fraction of the triplets whose anchor has a higher cosine with the nearer one; a tie counts half.

    Args:
        anchors, nearer, farther: ``(n, dim)`` unit vectors, n at least 1.

    Examples:
        >>> triplet_accuracy(np.array([[1.0, 0.0]]), np.array([[0.8, 0.6]]), np.array([[0.0, 1.0]]))
        1.0
    """
    difference = (anchors * nearer).sum(axis=1) - (anchors * farther).sum(axis=1)
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def graded_pairs(x: np.ndarray, y: np.ndarray, grades: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Return the correlations of the cosine of pairs with grades that people gave, as "spearman" (the usual one) and "pearson".

    Args:
        x, y: ``(n, dim)`` unit vectors, n at least 2.
        grades: n numbers; higher: more alike.

    Returns:
        Correlations in [-1, 1]; NaN where all grades or all cosines are equal.

    Source: Agirre et al. 2012 (semantic textual similarity).

    Examples:
        >>> x, y = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]), np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        >>> round(graded_pairs(x, y, [5, 4, 0])["spearman"], 6)
        1.0
    """
    from scipy.stats import pearsonr, spearmanr

    cosines = (x * y).sum(axis=1)
    if np.ptp(cosines) == 0 or np.ptp(grades) == 0:
        return {"spearman": float("nan"), "pearson": float("nan")}
    found: dict[str, Any] = {"spearman": spearmanr(cosines, grades)[0], "pearson": pearsonr(cosines, grades)[0]}
    return {name: float(value) for name, value in found.items()}


def analogy_accuracy(vectors: np.ndarray, questions: np.ndarray) -> float:
    r"""Return the fraction of analogies "a is to b as c is to d" in which d is nearest to :math:`b - a + c`.

    Args:
        vectors: ``(n, dim)`` unit vectors of all words.
        questions: ``(q, 4)`` int, the numbers of a, b, c and d, q at least 1; a, b and c are not answers.

    Source: Mikolov et al. 2013 (the rule, known as 3CosAdd).

    Examples:
        >>> man, woman, king, queen = [0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [0.9, 0.1, 1.0], [0.1, 0.9, 1.0]
        >>> words = np.array([man, woman, king, queen])
        >>> analogy_accuracy(words / np.linalg.norm(words, axis=1, keepdims=True), np.array([[0, 1, 2, 3]]))
        1.0
    """
    a, b, c, d = questions.T
    right = 0
    for start in range(0, len(questions), step := max(1, 2**24 // len(vectors))):
        part = slice(start, start + step)
        scores = (vectors[b[part]] - vectors[a[part]] + vectors[c[part]]) @ vectors.T
        scores[np.arange(len(scores))[:, None], questions[part, :3]] = -np.inf
        right += int(((scores.argmax(axis=1) == d[part]) & np.isfinite(scores.max(axis=1))).sum())
    return right / len(questions)
