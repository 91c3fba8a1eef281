"""Compare two sets of vectors of one modality by several measures, with one p-value for all of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from multimodal.monitor.measures.classifier import cross_validated_aucs, fold_numbers
from multimodal.monitor.measures.kernels import (
    centred,
    gaussian_kernel,
    kernel_differences,
    linear_kernel,
    quadratic_kernel,
    squared_distances,
)
from multimodal.monitor.measures.neighbours import nearest_rows, overlap, same_set_shares
from multimodal.monitor.measures.permutations import combined_p_value, p_value, permuted_sets, swapped_sets

PERMUTATIONS = 999


@dataclass(frozen=True)
class SetComparison:
    """How two sets differ, by five measures.

    Attributes:
        rows: number of rows of the reference and of the current set.
        values: measure -> how large the difference is. "classifier": area under the ROC curve of a linear classifier on
            held-out rows (0.5: no difference, 1: distinguished). "mmd": maximum mean discrepancy, with a Gaussian kernel.
            "mean": distance between the means, divided by the reference's standard deviation. "covariance": Frobenius
            distance between the second moments, divided by the norm of the reference's. "neighbours": the fraction of
            neighbours in the other set, 1: as of random sets, 0: separate.
        p_values: measure -> p-value of a permutation test.
        p_value: that of all measures, which are permuted together.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> reference, current = rng.standard_normal((2, 60, 8)).astype(np.float32)
        >>> found = compare_sets(reference, current + 1, rng)
        >>> found.p_value, found.values["classifier"] > 0.9
        (0.001, True)
    """

    rows: tuple[int, int]
    values: dict[str, float]
    p_values: dict[str, float]
    p_value: float


def compare_sets(
    reference: np.ndarray,
    current: np.ndarray,
    rng: np.random.Generator,
    *,
    same: np.ndarray | None = None,
    paired: bool = False,
    permutations: int = PERMUTATIONS,
) -> SetComparison:
    """Compare two sets of independent vectors.

    Args:
        reference: ``(n, dim)``.
        current: ``(m, dim)``.
        rng: the source of randomness.
        same: ``(m,)`` number of the reference row that is the same thing as a current one; -1: there is none. The test is then
            a cautious one: it finds that the things are others, not that the same things moved.
        paired: row i of both sets is the same thing; the test finds whether these moved.
        permutations: number of random assignments; the smallest p-value is 1 / (permutations + 1).

    Returns:
        The measures and their p-values.
    """
    n, m = len(reference), len(current)
    units = np.concatenate([np.arange(n), np.arange(m) + n])
    if paired:
        units[n:] = units[:n]
    elif same is not None:
        units[n:] = np.where(same >= 0, same, units[n:])
        units = np.unique(units, return_inverse=True)[1]
    sets = swapped_sets(n, permutations, rng) if paired else permuted_sets(np.arange(n + m) >= n, permutations, rng)
    order = rng.permutation(n + m)  # so that ties between neighbours are broken at random
    x = centred(np.concatenate([reference, current]).astype(np.float32)[order])
    sets = np.ascontiguousarray(sets[:, order])
    squared = squared_distances(x)
    nearest = nearest_rows(squared)
    found = {
        "classifier": cross_validated_aucs(x, sets, fold_numbers(units[order], rng)),
        "mmd": kernel_differences(gaussian_kernel(squared), sets),
        "mean": kernel_differences(linear_kernel(x), sets),
        "covariance": kernel_differences(quadratic_kernel(x), sets),
        "neighbours": same_set_shares(nearest, sets),
    }
    real = {name: float(values[0]) for name, values in found.items()}
    return SetComparison(
        (n, m),
        {
            "classifier": real["classifier"],
            "mmd": real["mmd"] ** 0.5,
            "mean": _ratio(real["mean"] ** 0.5, _spread(reference)),
            "covariance": _ratio(real["covariance"] ** 0.5, _second_moments(reference)),
            "neighbours": overlap(nearest, sets[0]),
        },
        {name: p_value(values) for name, values in found.items()},
        combined_p_value(np.stack(list(found.values()))),
    )


def _spread(x: np.ndarray) -> float:
    """Return the root of the mean squared distance from the mean."""
    return float(np.sqrt(np.square(centred(x)).sum(axis=1).mean()))


def _second_moments(x: np.ndarray) -> float:
    """Return the Frobenius norm of the covariance."""
    x = centred(x)
    return float(np.linalg.norm(x.T @ x / len(x)))


def _ratio(value: float, of: float) -> float:
    return value / of if of > 0 else 0.0 if value == 0 else float("inf")
