"""Differences of two sets as kernel means: of their means, their covariances, and their whole distributions.

For a kernel matrix K over the rows of both sets, and a = 1/m for each of the m rows of the current set and -1/n for each of the
n rows of the reference set, the squared distance between the sets' kernel means is a' K a (Gretton et al., A Kernel Two-Sample
Test, JMLR 2012, equation 5). So all assignments of a permutation test are one product of matrices.
"""

from __future__ import annotations

import numpy as np

BLOCK = 1024  # assignments at a time
ROUNDING = 1e-6  # of the kernel of a row with itself: smaller differences are rounding errors of float32


def centred(vectors: np.ndarray) -> np.ndarray:
    """Return vectors without their mean, ``(n, dim)`` float32.

    Args:
        vectors: ``(n, dim)`` float32.
    """
    return (vectors - vectors.mean(axis=0, dtype=np.float64)).astype(np.float32)


def linear_kernel(x: np.ndarray) -> np.ndarray:
    """Return the kernel whose difference is the squared distance between the means, ``(n, n)``.

    Args:
        x: ``(n, dim)`` centred rows of both sets.
    """
    return x @ x.T


def quadratic_kernel(x: np.ndarray) -> np.ndarray:
    """Return the kernel whose difference is that of the second moments: their squared Frobenius distance, ``(n, n)``.

    Args:
        x: ``(n, dim)`` centred rows of both sets.
    """
    return np.square(x @ x.T)


def squared_distances(x: np.ndarray) -> np.ndarray:
    """Return the squared distances between all rows, ``(n, n)`` float32, not below 0; 0 on the diagonal.

    Args:
        x: ``(n, dim)``.

    Examples:
        >>> squared_distances(np.array([[0.0, 0.0], [3.0, 4.0]]))
        array([[ 0., 25.],
               [25.,  0.]], dtype=float32)
    """
    lengths = np.einsum("ij,ij->i", x, x)
    squared = np.maximum(lengths[:, None] + lengths[None] - 2 * (x @ x.T), 0)
    np.fill_diagonal(squared, 0)
    return squared.astype(np.float32)


def gaussian_kernel(squared: np.ndarray) -> np.ndarray:
    """Return exp(-d^2 / median(d^2)), centred so that float32 is precise enough, ``(n, n)``.

    Args:
        squared: ``(n, n)`` squared distances. The bandwidth is the median distance between two rows (Gretton et al. 2012,
            section 8); 1 if more than half of the rows are equal.
    """
    above = squared[np.triu_indices(len(squared), 1)]
    width = float(np.median(above)) if len(above) else 0.0
    kernel = np.exp(-squared / (width if width > 0 else 1.0))
    means = kernel.mean(axis=0)  # what is equal in each row or column does not change the difference
    return kernel - means[None] - means[:, None] + means.mean()


def kernel_differences(kernel: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """Return the squared distance between the kernel means of two sets, for each assignment.

    Args:
        kernel: ``(n, n)``.
        sets: ``(b, n)`` bool, which rows are in the current set.

    Returns:
        ``(b,)``, not below 0.

    Examples:
        >>> x = np.array([[0.0], [2.0], [5.0], [7.0]])
        >>> kernel_differences(linear_kernel(x), np.array([[False, False, True, True], [False, True, False, True]]))
        array([25.,  4.])
    """
    found = []
    for start in range(0, len(sets), BLOCK):
        block = sets[start : start + BLOCK]
        sizes = block.sum(axis=1, keepdims=True)
        weights = np.where(block, 1 / sizes, -1 / (block.shape[1] - sizes)).astype(kernel.dtype)
        found.append(np.einsum("ij,ij->i", weights @ kernel, weights))
    differences = np.concatenate(found)
    return np.where(differences > ROUNDING * np.abs(np.diagonal(kernel)).mean(), differences, 0)
