"""Checks of what is searched for, and what they return to search with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from multimodal.core.errors import UsageError

UNIT = 1e-6  # a squared length differs by less than this from 1 where float32 has rounded it
VALUE_EXAMPLE = "For a value: search(text='a red cup')."


def check_vectors(vectors: Any, dim: int) -> np.ndarray:
    """Return queries as vectors of unit length, ``(q, dim)`` float32.

    Args:
        vectors: ``(q, dim)`` numbers of any length but 0.
        dim: width of the index.

    Raises:
        UsageError: they are not vectors of this width, not finite, or of length 0.

    Examples:
        >>> check_vectors([[3, 4]], 2).round(1)
        array([[0.6, 0.8]], dtype=float32)
    """
    if not (isinstance(vectors, np.ndarray) and vectors.dtype == np.float32):
        try:
            with np.errstate(over="ignore"):  # of numbers beyond float32, which are reported as infinite
                vectors = np.asarray(vectors, dtype=np.float32)
        except (ValueError, TypeError) as error:
            raise UsageError(f"The queries are not vectors ({error}). {VALUE_EXAMPLE}") from error
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        hint = " For one vector: search(vector[None])[0]." if vectors.shape == (dim,) else ""
        raise UsageError(f"The queries have shape {vectors.shape}, the index takes (q, {dim}).{hint}")
    if len(vectors) == 1 and abs(float(vectors[0].dot(vectors[0])) - 1) < UNIT:
        return vectors  # what follows costs a tenth of a search in a small index
    precise = vectors.astype(np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", precise, precise))
    if not (finite := np.isfinite(lengths)).all():
        raise UsageError(f"Query {int(np.argmin(finite))} is not finite: it has NaN or infinite numbers.")
    if not lengths.all():
        raise UsageError(f"Query {int(np.argmin(lengths))} has length 0: it has no direction to search in.")
    return (precise / lengths[:, None]).astype(np.float32)


def check_keys(keys: Sequence[str]) -> list[str]:
    """Return keys of rows as a list.

    Args:
        keys: the keys.

    Raises:
        UsageError: it is not a list of texts.

    Examples:
        >>> check_keys(("a", "b"))
        ['a', 'b']
    """
    if isinstance(keys, str) or not all(isinstance(key, str) for key in keys):
        raise UsageError(f"Keys are given as a list of texts, like ['cup-1'], not as {keys!r}.")
    return list(dict.fromkeys(keys))


def words_of(hybrid: bool | str, query: Mapping[str, Any]) -> str | None:
    """Return the words that a hybrid search looks for; None: it is not hybrid.

    Args:
        hybrid: whether the query's text is looked for by its words, or other words.
        query: modality -> its value.

    Raises:
        UsageError: the query has no text.

    Examples:
        >>> words_of(True, {"text": "a red cup"}), words_of("SKU-7", {"image": "cup.png"}), words_of(False, {})
        ('a red cup', 'SKU-7', None)
    """
    if isinstance(hybrid, str):
        return hybrid
    if not hybrid:
        return None
    if not isinstance(text := query.get("text"), str):
        raise UsageError("Hybrid search takes the words of the query's text: give text='...', or hybrid='the words'.")
    return text
