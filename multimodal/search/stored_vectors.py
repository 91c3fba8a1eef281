"""Unit vectors as a Parquet column of float32, float16 or int8.

An int8 vector is the float32 vector times 127 / its largest component, rounded. Neither the factor nor an exact length is
stored: the vectors are of unit length, so a reader divides by the length.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa

Dtype = Literal["float32", "float16", "int8"]
DTYPES = get_args(Dtype)
LARGEST = 127  # of int8


def to_stored(vectors: np.ndarray, dtype: str) -> np.ndarray:
    """Convert unit vectors to the numbers that are stored.

    Args:
        vectors: ``(n, dim)`` float32, of unit length. A vector that is not finite becomes zeros as int8.
        dtype: one of ``DTYPES``.

    Returns:
        ``(n, dim)`` of this type.

    Examples:
        >>> to_stored(np.array([[0.6, -0.8]], dtype=np.float32), "int8")
        array([[  95, -127]], dtype=int8)
    """
    if dtype != "int8":
        return vectors.astype(dtype, copy=False)
    largest = np.abs(vectors).max(axis=1, initial=0, keepdims=True)
    usable = np.isfinite(largest) & (largest > 0)
    scaled = np.divide(vectors, largest, out=np.zeros_like(vectors), where=usable)
    return np.rint(scaled * LARGEST).astype(np.int8)


def to_column(stored: np.ndarray, present: np.ndarray) -> pa.Array:
    """Return a column of vectors, null where a row has none.

    Args:
        stored: ``(n, dim)``, what ``to_stored`` returned; of rows without a vector any numbers.
        present: ``(n,)`` bool.
    """
    flat: Any = pa.array(stored.ravel())
    return pa.FixedSizeListArray.from_arrays(flat, stored.shape[1], mask=pa.array(~present))


def stored_of(part: pa.Table, modality: str, dim: int) -> np.ndarray:
    """Return the numbers of a column of vectors as they are stored, ``(n, dim)``, of the n rows that are not null.

    Args:
        part: a part of a folder of embeddings.
        modality: the column.
        dim: width of the vectors.

    Raises:
        KeyError: there is no such column.
        TypeError: it is not a column of vectors of this width.
    """
    column = part[modality]
    if not any(column.type.equals(pa.list_(pa.from_numpy_dtype(dtype), dim)) for dtype in DTYPES):
        raise TypeError(f"{column.type} is not a type of vectors")
    return column.drop_null().combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)


def vectors_of(part: pa.Table, modality: str, dim: int) -> np.ndarray:
    """Return the vectors of a modality, ``(n, dim)`` float32 of unit length, of the n rows that are not null.

    What is stored as float16 or int8 is divided by its length. A vector that was not finite is zeros or not finite.

    Args:
        part: a part of a folder of embeddings.
        modality: the column.
        dim: width of the vectors.

    Raises:
        KeyError: there is no such column.
        TypeError: it is not a column of vectors of this width.

    Examples:
        >>> stored = to_stored(np.array([[0.6, 0.8], [0, 0], [1, 0]], dtype=np.float32), "int8")
        >>> part = pa.table({"text": to_column(stored, np.array([True, False, True]))})
        >>> vectors_of(part, "text", 2).round(2)
        array([[0.6, 0.8],
               [1. , 0. ]], dtype=float32)
    """
    stored = stored_of(part, modality, dim)
    if stored.dtype == np.float32:
        return stored
    vectors = stored.astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=vectors, where=lengths > 0)
