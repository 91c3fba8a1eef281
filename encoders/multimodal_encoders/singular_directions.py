"""Singular directions of counts: what the encoders that are fitted without training project on."""

from __future__ import annotations

from typing import Any

import numpy as np


def singular_directions(counts: Any, width: int) -> np.ndarray:
    """Return the strongest right singular vectors, scaled so that the projections of the counts have a mean square of 1.

    Args:
        counts: ``(n, terms)``, a sparse array of SciPy with at least one row.
        width: number of directions.

    Returns:
        ``(terms, width)``; the directions beyond what the counts have are 0, as all are without counts.

    Examples:
        >>> from scipy.sparse import csr_array
        >>> counts = csr_array([[2.0, 0.0], [0.0, 1.0]])
        >>> directions = singular_directions(counts, 3)
        >>> directions.shape, round(float(((counts @ directions) ** 2).mean()), 6)
        ((2, 3), 1.0)
    """
    from sklearn.utils.extmath import randomized_svd

    rows, terms = counts.shape
    found = np.zeros((terms, width), counts.dtype)
    if counts.nnz:
        kept = min(width, terms, rows)
        _, singular, directions = randomized_svd(counts, kept, random_state=0)
        found[:, :kept] = directions.T / np.sqrt((singular**2).sum() / (rows * width))
    return found
