"""Pieces of embeddings: the vectors of one modality, and the rows that describe them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from multimodal.core.errors import MultimodalError
from multimodal.search.stored_vectors import vectors_of
from multimodal.search.unit_vectors import describe_vector, not_unit

Piece = tuple[np.ndarray, pa.Table]  # ``(n, dim)`` vectors and the n rows of ``items`` that describe them


def pieces_of(part: pa.Table, modalities: Sequence[str], dim: int) -> Iterator[Piece]:
    """Yield the vectors of each modality of a part of embeddings, and the items that describe them.

    Args:
        part: the part, see ``multimodal.search.embed``.
        modalities: its columns of vectors.
        dim: width of the vectors.

    Raises:
        MultimodalError: a vector is not finite or not of unit length.
    """
    for modality in modalities:
        present = part.filter(part[modality].is_valid())
        vectors = vectors_of(part, modality, dim)
        _check_vectors(vectors, present["key"], modality)
        named = present.select(["key", "group", "metadata"])
        yield vectors, named.append_column("modality", pa.array([modality] * len(named), pa.string()))


def modalities_of(part: pa.Table) -> list[str]:
    """Return the columns of vectors of a part of embeddings.

    Args:
        part: the part.

    Examples:
        >>> modalities_of(pa.table({"key": ["a"], "text": pa.array([[0.6, 0.8]], pa.list_(pa.float32(), 2))}))
        ['text']
    """
    return [field.name for field in part.schema if pa.types.is_fixed_size_list(field.type)]


def _check_vectors(vectors: np.ndarray, keys: pa.ChunkedArray, modality: str) -> None:
    if not len(wrong := not_unit(vectors)):
        return
    infinite = wrong[~np.isfinite(vectors[wrong]).all(axis=1)]
    if len(infinite):
        raise MultimodalError(
            f"{len(infinite):,} of {len(vectors):,} {modality} vectors are not finite, the first of the row"
            f" {keys[int(infinite[0])].as_py()!r}: the model returns NaN or infinity for them, so they cannot be indexed."
        )
    raise MultimodalError(
        f"{len(wrong):,} of {len(vectors):,} {modality} vectors are not of unit length, the first of the row"
        f" {keys[int(wrong[0])].as_py()!r} ({describe_vector(vectors[wrong[0]])}), so they cannot be indexed."
    )


def parts_of(vectors: np.ndarray, items: pa.Table, part_rows: int = 8192) -> Iterator[pa.Table]:
    """Yield stored vectors as parts of embeddings again: each row with a vector of each of its modalities.

    Args:
        vectors: ``(n, dim)`` float32.
        items: the n rows that describe them, with ``key``, ``group``, ``metadata`` and ``modality``.
        part_rows: rows in a part.

    Examples:
        >>> items = {"key": ["a", "a"], "group": ["g"] * 2, "metadata": ["{}"] * 2, "modality": ["text", "image"]}
        >>> next(parts_of(np.eye(2, dtype=np.float32), pa.table(items))).column_names
        ['key', 'group', 'metadata', 'text', 'image']
    """
    described = items.to_pylist()
    seen: dict[tuple[str, str], int] = {}
    rows: dict[tuple[str, int], dict[str, int]] = {}  # key and number of the alternative -> modality -> vector
    for position, item in enumerate(described):
        of_key = item["key"], item["modality"]
        number = seen[of_key] = seen.get(of_key, -1) + 1
        rows.setdefault((item["key"], number), {})[item["modality"]] = position
    modalities = list(dict.fromkeys(item["modality"] for item in described))
    positions = list(rows.values())
    for start in range(0, len(positions), part_rows):
        of_part = positions[start : start + part_rows]
        first = [described[next(iter(row.values()))] for row in of_part]
        columns: dict[str, Any] = {name: [item[name] for item in first] for name in ("key", "group", "metadata")}
        for modality in modalities:
            chosen = np.array([row.get(modality, 0) for row in of_part])
            missing = pa.array([modality not in row for row in of_part])
            flat = pa.array(np.ascontiguousarray(vectors[chosen], np.float32).ravel())
            columns[modality] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1], mask=missing)
        yield pa.table(columns)


def sample_of(parts: Iterable[pa.Table], modalities: Sequence[str], dim: int, count: int) -> np.ndarray:
    """Return some of the vectors of parts of embeddings, ``(n, dim)`` float32: those of the first parts.

    Args:
        parts: the parts.
        modalities: their columns of vectors.
        dim: width of the vectors.
        count: about how many.
    """
    found = [np.empty((0, dim), np.float32)]
    for part in parts:
        found += [vectors for vectors, _ in pieces_of(part, modalities, dim)]
        if sum(map(len, found)) >= count:
            break
    return np.concatenate(found)
