"""One vector of a query that has several parts: values of modalities with weights, and indexed rows to be like and unlike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from multimodal.core.errors import UsageError, suggest

SMALLEST = 1e-6  # length of a sum of unit vectors that still has a direction


def combine(
    encoded: Mapping[str, np.ndarray],
    weights: Mapping[str, float] | None = None,
    like: Sequence[np.ndarray] = (),
    unlike: Sequence[np.ndarray] = (),
) -> np.ndarray:
    """Return the weighted sum of the values' vectors, plus the mean of what is liked, minus the mean of what is not.

    Args:
        encoded: modality -> ``(dim,)`` vector of the value.
        weights: modality -> weight of its value; negative: away from it. Others have 1.
        like: ``(dim,)`` vectors to be near to.
        unlike: ``(dim,)`` vectors to be far from.

    Returns:
        ``(dim,)`` float32 of unit length.

    Raises:
        UsageError: a weight is not a finite number or names no value of the query, there is nothing to be near to, or the
            parts cancel out.

    Examples:
        >>> combine({"text": np.array([1.0, 0]), "image": np.array([0, 1.0])}, {"image": 0.75}).round(2)
        array([0.8, 0.6], dtype=float32)
        >>> combine({}, like=[np.array([1.0, 0])], unlike=[np.array([0, 1.0])]).round(2)
        array([ 0.71, -0.71], dtype=float32)
    """
    weights = weights or {}
    for name, weight in weights.items():
        if name not in encoded:
            raise UsageError(f"The query has no value of {name!r} to be weighted.{suggest(name, list(encoded))}")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not np.isfinite(weight):
            raise UsageError(f"The weight of {name} must be a number, not {weight!r}.")
    parts = [weights.get(name, 1.0) * _unit(vector) for name, vector in encoded.items()]
    parts += [np.mean([_unit(v) for v in like], axis=0)] if len(like) else []
    parts += [-np.mean([_unit(v) for v in unlike], axis=0)] if len(unlike) else []
    if not parts:
        raise UsageError("The query is empty: give a value, or a key of what the hits should be like.")
    total = np.sum(parts, axis=0)
    if (length := np.linalg.norm(total)) < SMALLEST:
        raise UsageError("The parts of the query cancel out: no direction is left to search in. Change their weights.")
    return (total / length).astype(np.float32)


def _unit(vector: np.ndarray) -> np.ndarray:
    vector = np.asarray(vector, np.float64)
    length = np.linalg.norm(vector)
    return vector / length if length > 0 else vector
