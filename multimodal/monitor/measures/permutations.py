"""Permutation tests: how often a random assignment of the rows to two sets makes as large a difference as the real one.

1. ``permuted_sets`` and ``swapped_sets`` draw assignments; the first is always the real one.
2. A measure returns its value for each assignment.
3. ``p_value`` compares the real one with all; ``combined_p_value`` does so for several measures at once.

The p-values are exact at any size: under the null hypothesis all assignments are equally likely, so that p <= a has
probability at most a (Phipson & Smyth 2010).
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

DIGITS = 5  # of a measure that count; further ones are rounding errors of float32


def permuted_sets(current: np.ndarray, permutations: int, rng: np.random.Generator) -> np.ndarray:
    """Draw which rows are in the current set, each time as many as are; for rows that are independent of one another.

    Args:
        current: ``(n,)`` bool, whether a row is in the current set.
        permutations: number of random assignments.
        rng: the source of randomness.

    Returns:
        ``(permutations + 1, n)`` bool; the first row is ``current``.

    Examples:
        >>> permuted_sets(np.array([True, False, False]), 4, np.random.default_rng(0)).sum(axis=1)
        array([1, 1, 1, 1, 1])
    """
    drawn = np.repeat(current[None], permutations + 1, axis=0)
    drawn[1:] = rng.permuted(drawn[1:], axis=1)
    return drawn


def swapped_sets(pairs: int, permutations: int, rng: np.random.Generator) -> np.ndarray:
    """Draw which row of each pair is in the current set; for things that are in both sets.

    Args:
        pairs: number of pairs. Row i of the reference set and row ``pairs + i`` of the current set are a pair.
        permutations: number of random assignments.
        rng: the source of randomness.

    Returns:
        ``(permutations + 1, 2 * pairs)`` bool; the first row is the real assignment.

    Examples:
        >>> drawn = swapped_sets(3, 4, np.random.default_rng(0))
        >>> drawn[0], bool((drawn[:, :3] != drawn[:, 3:]).all())
        (array([False, False, False,  True,  True,  True]), True)
    """
    swapped = rng.random((permutations + 1, pairs)) < 0.5
    swapped[0] = False
    return np.concatenate([swapped, ~swapped], axis=1)


def p_values(values: np.ndarray) -> np.ndarray:
    """Return for each assignment the fraction of all assignments, itself included, whose value is at least as large.

    Args:
        values: ``(..., b)`` values of a measure for b assignments. Values that are equal up to rounding are equal.

    Returns:
        ``(..., b)`` in (0, 1].

    Examples:
        >>> p_values(np.array([3.0, 1.0, 2.0, 1.0]))
        array([0.25, 1.  , 0.5 , 1.  ])
    """
    spread = np.abs(values).max(axis=-1, keepdims=True)
    rounded = np.round(values / np.where(spread > 0, spread, 1), DIGITS)
    return rankdata(-rounded, method="max", axis=-1) / values.shape[-1]


def p_value(values: np.ndarray) -> float:
    """Return the p-value of the real assignment, the first one.

    Args:
        values: ``(b,)`` values of a measure, large where the sets differ.

    Examples:
        >>> p_value(np.array([3.0, 1.0, 2.0, 1.0]))
        0.25
    """
    return float(p_values(values)[0])


def combined_p_value(values: np.ndarray) -> float:
    """Return one p-value for several measures: that of the product of their p-values, which is itself permuted.

    It is valid however the measures depend on one another.

    Args:
        values: ``(t, b)`` values of t measures for the same b assignments; the first assignment is the real one.

    Source:
        Pesarin & Salmaso, Permutation Tests for Complex Data, 2010, chapter 4, with Fisher's combining function.

    Examples:
        >>> combined_p_value(np.array([[3.0, 1.0, 2.0, 1.0], [2.0, 1.0, 1.0, 3.0]]))
        0.25
    """
    return p_value(-np.log(p_values(values)).sum(axis=0))


def bonferroni(p_values: list[float]) -> float:
    """Return one p-value for several, which may depend on one another in any way; 1 for none.

    Examples:
        >>> bonferroni([0.01, 0.5, 0.9]), bonferroni([0.5, 0.9])
        (0.03, 1.0)
    """
    return min(1.0, min(p_values, default=1.0) * len(p_values)) if p_values else 1.0
