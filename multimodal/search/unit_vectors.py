"""Check that vectors are of unit length, as cosines require."""

from __future__ import annotations

import numpy as np

BLOCK_ROWS = 1 << 16
TOLERANCE = 1e-2  # of the squared length; a vector of 4,096 components in float32 is within 1e-5


def not_unit(vectors: np.ndarray) -> np.ndarray:
    """Return the rows that are not finite, or not of unit length, ``(m,)`` int64, ascending.

    Args:
        vectors: ``(n, dim)`` float32, in memory or memory-mapped; they are read by block.

    Examples:
        >>> not_unit(np.array([[0.6, 0.8], [0, 0], [1, 1], [np.nan, 0]], dtype=np.float32))
        array([1, 2, 3])
    """
    found = [np.zeros(0, np.int64)]
    for start in range(0, len(vectors), BLOCK_ROWS):
        block = vectors[start : start + BLOCK_ROWS]
        with np.errstate(over="ignore", invalid="ignore"):
            squared = np.einsum("ij,ij->i", block, block)
            wrong = ~(np.abs(squared - 1) <= TOLERANCE)  # also where it is NaN
        found.append(start + np.flatnonzero(wrong))
    return np.concatenate(found)


def describe_vector(vector: np.ndarray) -> str:
    """Say what is wrong with a vector that ``not_unit`` found.

    Examples:
        >>> describe_vector(np.array([np.nan, 1])), describe_vector(np.array([3.0, 4.0]))
        ('NaN or infinity', 'length 5')
    """
    with np.errstate(over="ignore"):
        length = np.linalg.norm(vector.astype(np.float64))
    return f"length {length:.6g}" if np.isfinite(length) else "NaN or infinity"
