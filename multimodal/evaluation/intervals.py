"""Confidence intervals of measures, and whether two models differ on the same queries.

Queries of one group (ten photos of one cup) are not independent, so whole groups are drawn and exchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95  # of the intervals of a report
BLOCK = 2**22  # drawn numbers in memory at a time


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval.

    Attributes:
        mean: the mean over the queries.
        low, high: bounds of the interval.

    Examples:
        >>> interval = bootstrap({"recall@1": np.array([1.0, 0.0, 1.0, 1.0])}, groups=np.arange(4))["recall@1"]
        >>> interval.mean, interval.low < 0.75 < interval.high
        (0.75, True)
    """

    mean: float
    low: float
    high: float


def bootstrap(
    values: Mapping[str, np.ndarray],
    groups: np.ndarray,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return the percentile bootstrap interval of the mean of each measure.

    Args:
        values: name of a measure -> ``(q,)``, its value for each query, q at least 1.
        groups: ``(q,)``, the group of each query; groups are drawn with all their queries.
        confidence: probability of the interval, between 0 and 1.
        resamples: number of drawn samples.
        seed: seed of the draws.

    Returns:
        Name -> mean and interval. With one group, the interval is its mean.

    Source: Efron and Tibshirani 1993, chapter 13; of clusters, Davison and Hinkley 1997, section 3.8.
    """
    sums = _sums_by_group(values, groups)
    draws = np.random.default_rng(seed)
    n = len(sums)
    means = []
    for size in _blocks(resamples, n):
        drawn = draws.multinomial(n, np.full(n, 1 / n), size=size) @ sums
        means.append(drawn[:, :-1] / drawn[:, -1:])
    outside = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [outside, 1 - outside], axis=0)
    return {
        name: Interval(float(np.mean(v)), float(low[i]), float(high[i])) for i, (name, v) in enumerate(values.items())
    }


@dataclass(frozen=True)
class Difference:
    """How a measure of model b differs from that of model a on the same queries.

    Attributes:
        mean: mean of b minus a.
        low, high: bootstrap interval of it.
        p_value: probability of a difference at least as large, in either direction, if the models did not differ.
    """

    mean: float
    low: float
    high: float
    p_value: float


def compare_paired(
    a: Mapping[str, np.ndarray],
    b: Mapping[str, np.ndarray],
    groups: np.ndarray,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = 2000,
    exchanges: int | None = None,
    seed: int = 0,
) -> dict[str, Difference]:
    """Compare two models on the same queries, by a randomization test: the models of whole groups are exchanged at random.

    Args:
        a, b: name of a measure -> ``(q,)``, its value for each query.
        groups: ``(q,)``, the group of each query.
        confidence: probability of the intervals.
        resamples: number of drawn samples.
        exchanges: number of random exchanges, e; no p-value is below 1 / (e + 1). None: ``resamples``.
        seed: seed of both.

    Returns:
        Name of each measure that both have -> the difference.

    Source: Smucker, Allan and Carterette 2007, section 3.3.

    Examples:
        >>> better = compare_paired({"mrr": np.zeros(20)}, {"mrr": np.ones(20)}, groups=np.arange(20))["mrr"]
        >>> better.mean, better.p_value < 0.01
        (1.0, True)
    """
    differences = {name: np.asarray(b[name], np.float64) - a[name] for name in a if name in b}
    intervals = bootstrap(differences, groups, confidence=confidence, resamples=resamples, seed=seed)
    sums = _sums_by_group(differences, groups)[:, :-1]
    draws, observed = np.random.default_rng(seed), np.abs(sums.sum(axis=0))
    as_large = np.zeros(len(differences), np.int64)
    exchanges = resamples if exchanges is None else exchanges
    for size in _blocks(exchanges, len(sums)):
        signs = draws.integers(0, 2, size=(size, len(sums)), dtype=np.int8) * 2.0 - 1.0
        as_large += (np.abs(signs @ sums) >= observed - 1e-9).sum(axis=0)
    # the observed assignment counts as one of them, so that no p-value is 0
    p_values = (1 + as_large) / (1 + exchanges)
    return {
        name: Difference(found.mean, found.low, found.high, float(p_values[i]))
        for i, (name, found) in enumerate(intervals.items())
    }


def holm(p_values: Sequence[float]) -> list[float]:
    r"""Correct p-values for the number of comparisons, so that at most a share alpha of all reports has a false difference.

    With the m p-values in ascending order, the corrected ones are

    .. math:: \tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1) p_{(j)})

    Args:
        p_values: of m comparisons, which may depend on one another.

    Returns:
        The corrected p-values, in the same order; a comparison holds at level alpha if its own is at most alpha.

    Source: Holm 1979.

    Examples:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return corrected.tolist()


def _sums_by_group(values: Mapping[str, np.ndarray], groups: np.ndarray) -> np.ndarray:
    """Return ``(groups, measures + 1)``: the sum of each measure over each group's queries, and their number."""
    _, number = np.unique(groups, return_inverse=True)
    columns = [*values.values(), np.ones(len(groups))]
    return np.stack([np.bincount(number, weights=column) for column in columns], axis=1)


def _blocks(resamples: int, n: int) -> list[int]:
    size = max(1, BLOCK // max(1, n))
    return [min(size, resamples - start) for start in range(0, resamples, size)]
