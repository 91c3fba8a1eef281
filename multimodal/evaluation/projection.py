"""Two coordinates for each vector of a space, by principal components or by UMAP."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Literal, get_args

import numpy as np

from multimodal.core.errors import UsageError, suggest
from multimodal.core.extras import require

Projection = Literal["pca", "umap"]


def pca(vectors: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the first two principal components of vectors, and the fraction of their variance that these have.

    Args:
        vectors: ``(n, dim)`` finite.

    Returns:
        ``(n, 2)`` float64 and a number in [0, 1]; zeros, and NaN, where all vectors are equal or there is one.

    Examples:
        >>> points, explained = pca(np.array([[0.0, 0.0, 5.0], [2.0, 0.0, 5.0], [4.0, 0.0, 5.0]]))
        >>> points[:, 0].tolist(), explained
        ([-2.0, 0.0, 2.0], 1.0)
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    values, directions = np.linalg.eigh(centred.T @ centred)  # ascending
    total = float(values.clip(min=0).sum())
    if total <= 1e-9 * max(len(vectors), 1):
        return np.zeros((len(vectors), 2)), float("nan")
    first = directions[:, ::-1][:, :2]
    first = first * np.sign(first[np.abs(first).argmax(axis=0), np.arange(first.shape[1])])  # else of either sign
    points = np.zeros((len(vectors), 2))
    points[:, : first.shape[1]] = centred @ first
    return points, float(values[::-1][:2].clip(min=0).sum() / total)


def without_means(vectors: np.ndarray, kinds: Sequence[str]) -> np.ndarray:
    """Return vectors ``(n, dim)`` with the mean of those of each kind subtracted.

    Args:
        vectors: the vectors.
        kinds: the kind of each.
    """
    names, numbers = np.unique(np.asarray(kinds), return_inverse=True)
    sums = np.zeros((len(names), vectors.shape[1]))
    np.add.at(sums, numbers, vectors)
    return vectors - (sums / np.bincount(numbers)[:, None])[numbers]


def check_projection(projection: str) -> None:
    """Check that there is such a projection and that its library is installed, before work whose result it draws.

    Raises:
        UsageError: there is not, or it is not.
    """
    if projection not in (known := list(get_args(Projection))):
        raise UsageError(f"There is no projection {projection!r}.{suggest(projection, known)}")
    if projection == "umap":
        require("umap", "A map by UMAP", "umap")


def umap(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the coordinates ``(n, 2)`` that UMAP gives to vectors by their cosines; for fewer than 4, those of ``pca``.

    Args:
        vectors: ``(n, dim)`` finite.
        seed: decides the result.

    Source: McInnes, Healy and Melville 2018.
    """
    if len(vectors) < 4:
        return pca(vectors)[0]
    library: Any = import_module("umap")
    reducer = library.UMAP(
        n_neighbors=min(15, len(vectors) - 1),
        metric="cosine",
        random_state=seed,
        n_jobs=1,  # as a seed needs; else it warns
        init="pca" if len(vectors) > 16 else "random",
    )
    return np.asarray(reducer.fit_transform(vectors), dtype=np.float64)
