"""Classifier two-sample test: can a linear classifier distinguish the sets on rows that it was not fitted to?

The classifier is a ridge regression of the set, whose direction is that of regularized linear discriminant analysis. Its
cross-validation has a closed form, so that it is fitted again for every assignment of a permutation test.

Source: Lopez-Paz & Oquab, Revisiting Classifier Two-Sample Tests, ICLR 2017; Kim et al., Classification Accuracy as a Proxy for
Two-Sample Testing, Annals of Statistics 2021.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

FOLDS = 5
RIDGE = 0.1  # of the mean variance of a component
BLOCK = 512  # assignments at a time


def fold_numbers(units: np.ndarray, rng: np.random.Generator, folds: int = FOLDS) -> np.ndarray:
    """Assign rows to folds at random, ``(n,)``; rows of one thing to the same fold, so that none is recognized.

    Args:
        units: ``(n,)`` number of the thing that a row is of, from 0.
        rng: the source of randomness.
        folds: number of folds.

    Examples:
        >>> fold_numbers(np.array([0, 1, 0, 1]), np.random.default_rng(0), folds=2)
        array([0, 1, 0, 1])
    """
    count = int(units.max()) + 1
    return rng.permutation(np.arange(count) % folds)[units]


def cross_validated_aucs(x: np.ndarray, sets: np.ndarray, folds: np.ndarray, ridge: float = RIDGE) -> np.ndarray:
    """Return the area under the ROC curve of a linear classifier, the mean over folds, for each assignment.

    Args:
        x: ``(n, dim)`` centred rows of both sets.
        sets: ``(b, n)`` bool, which rows are in the current set.
        folds: ``(n,)`` fold of each row.
        ridge: strength of the regularization, as a multiple of the mean variance of a component.

    Returns:
        ``(b,)`` in [0, 1]; 0.5: the sets cannot be distinguished. Folds with rows of one set alone are left out.

    Examples:
        >>> x = np.array([[-1.0], [-1.1], [-0.9], [1.0], [1.1], [0.9]])
        >>> current = np.array([[False, False, False, True, True, True]])
        >>> cross_validated_aucs(x, current, np.array([0, 1, 2, 0, 1, 2]))
        array([1.])
    """
    sums, counts = np.zeros(len(sets)), np.zeros(len(sets))
    for fold in np.unique(folds):
        held = folds == fold
        if held.all():  # nothing is left to fit
            continue
        fitted = x[~held]
        moments = fitted.T @ fitted
        strength = ridge * np.trace(moments) / len(moments)
        moments[np.diag_indices_from(moments)] += strength if strength > 0 else 1.0
        directions = np.linalg.solve(moments, fitted.T)
        for start in range(0, len(sets), BLOCK):
            block = sets[start : start + BLOCK]
            targets = block[:, ~held].astype(x.dtype)
            targets -= targets.mean(axis=1, keepdims=True)
            scores = targets @ directions.T @ x[held].T
            found = areas_under_curve(scores, block[:, held])
            usable = np.isfinite(found)
            sums[start : start + BLOCK] += np.where(usable, found, 0)
            counts[start : start + BLOCK] += usable
    return np.divide(sums, counts, out=np.full(len(sets), 0.5), where=counts > 0)


def areas_under_curve(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve of each row of scores, ``(b,)``; NaN where all are of one class.

    Args:
        scores: ``(b, n)``; those that differ by a 100,000th of the largest are equal.
        positive: ``(b, n)`` bool.

    Examples:
        >>> areas_under_curve(np.array([[0.1, 0.9, 0.5, 0.5]]), np.array([[False, True, True, False]]))
        array([0.875])
    """
    largest = np.abs(scores).max(axis=1, keepdims=True)
    ranks = rankdata(np.round(scores / np.where(largest > 0, largest, 1), 5), axis=1)
    m = positive.sum(axis=1)
    n = positive.shape[1] - m
    wins = (ranks * positive).sum(axis=1) - m * (m + 1) / 2
    return np.divide(wins, m * n, out=np.full(len(scores), np.nan), where=m * n > 0)
