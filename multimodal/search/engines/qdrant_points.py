"""How rows, their vectors and conditions are stored in Qdrant's engine, in this process or on a server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import chain
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import qdrant_edge as qdrant

from multimodal.core.conditions import Range, Where
from multimodal.search.engines.engine import ITEM_SCHEMA, Found
from multimodal.search.engines.layout import WORDS, Layout
from multimodal.search.pieces import pieces_of

PAGE = 1024  # points read at a time
SEARCHED = 128  # neighbours kept while the graph is searched; more find more of the nearest, and take longer
SEARCHED_WHERE = 256  # the same under a condition, as the graph's paths among the rows that meet it are fewer
COMPARED = 50_000  # rows that meet a condition, up to which each of them is compared: some 13 ms for 256 components
ACORN_SHARE = 0.4  # of the rows that meet a list of values, up to which the neighbours' neighbours are searched too
OVERSAMPLED = {"int8": 4, "binary": 16}  # candidates for each hit where compressed vectors are searched first
PREFIX_OVERSAMPLED = 4
SHOWN = ["key", "group", "metadata"]

GRAPH = qdrant.HnswIndexConfig(m=16, ef_construct=128, full_scan_threshold=10_000)


def neighbours_kept(count: int, where: Where | None) -> int:
    """Return how many neighbours are kept while the graph is searched for a number of hits."""
    return max(SEARCHED_WHERE if where else SEARCHED, count)


def lists_values(where: Where | None) -> bool:
    """Return whether a condition allows several values of a column, whose rows the graph does not link to each other.

    Each frequent value has links of its own. Among the rows of 10 values in 100, 0.13 of the nearest were found by these.

    Examples:
        >>> lists_values({"set": ["a", "b"]}), lists_values({"set": ["a"]})
        (True, False)
    """
    return any(not isinstance(wanted, Range) and len(wanted) > 1 for wanted in (where or {}).values())


def shard_config(layout: Layout) -> qdrant.EdgeConfig:
    """Return the vectors of a new shard: those that are searched, the full ones where they are reduced, and those of words.

    Args:
        layout: what is to be stored.
    """
    compressed = None
    if layout.quantization == "int8":
        compressed = qdrant.ScalarQuantizationConfig(qdrant.ScalarType.Int8, quantile=0.99)
    elif layout.quantization == "binary":
        compressed = qdrant.BinaryQuantizationConfig()
    dot = qdrant.Distance.Dot  # of unit vectors: the cosine
    vectors = {}
    for modality in layout.modalities:
        vectors[layout.vectors_of(modality)] = qdrant.EdgeVectorParams(
            layout.width, dot, hnsw_config=GRAPH, quantization_config=compressed
        )
        if layout.reduced:  # read for the candidates alone
            full = qdrant.EdgeVectorParams(layout.dim, dot, hnsw_config=qdrant.HnswIndexConfig(0, 4, 0))
            vectors[layout.full_vectors_of(modality)] = full
    words = qdrant.EdgeSparseVectorParams(modifier=qdrant.Modifier.Idf)
    return qdrant.EdgeConfig(vectors=vectors, sparse_vectors={WORDS: words})


def word_weights(layout: Layout) -> qdrant.Bm25:
    """Return the weights of words of any language: without stop words, and words are not reduced to their stems.

    Args:
        layout: what is stored.
    """
    return qdrant.Bm25(
        qdrant.Bm25Config(
            avg_len=layout.words_a_row,
            lowercase=True,
            ascii_folding=True,
            stemmer=qdrant.DisabledStemmer(),
            stopwords=qdrant.StopwordsSet(),
        )
    )


def conditions_of(layout: Layout, where: Where | None) -> list[Any]:
    """Return conditions in the engine's form.

    Args:
        layout: what is stored.
        where: column -> the values of which a row must have one, or a range.
    """
    return [
        qdrant.FieldCondition(layout.range_field(column, wanted.kind), range=qdrant.RangeFloat(**wanted.bounds))
        if isinstance(wanted, Range)
        else qdrant.FieldCondition(layout.field_of(column), match=qdrant.MatchAny(list(wanted)))
        for column, wanted in (where or {}).items()
    ]


def ids_of(keys: Sequence[str]) -> list[UUID]:
    """Return the ids of a part's rows: of their keys, and of the number of the alternative where a key comes again.

    Args:
        keys: the rows' keys.

    Examples:
        >>> len(set(ids_of(["a", "b", "a"])))
        3
    """
    seen: dict[str, int] = {}
    ids = []
    for key in keys:
        number = seen[key] = seen.get(key, -1) + 1
        ids.append(UUID(bytes=sha256(f"{number} {key}".encode("utf-8", "surrogatepass")).digest()[:16]))
    return ids


def vectors_of_rows(layout: Layout, part: pa.Table, modalities: Sequence[str]) -> list[dict[str, Any]]:
    """Return the named vectors of each row of a part.

    Args:
        layout: what is stored.
        part: a part of embeddings.
        modalities: its columns of vectors.

    Raises:
        MultimodalError: a vector is not finite or not of unit length.
    """
    of_rows: list[dict[str, Any]] = [{} for _ in range(len(part))]
    for modality in modalities:
        present = np.flatnonzero(part[modality].is_valid().to_numpy())
        for vectors, _ in pieces_of(part, [modality], layout.dim):
            searched = layout.reduce(vectors)
            for row, vector, full in zip(present.tolist(), searched, vectors, strict=True):
                of_rows[row][layout.vectors_of(modality)] = vector.tolist()
                if layout.reduced:
                    of_rows[row][layout.full_vectors_of(modality)] = full.tolist()
    return of_rows


def found_of(points: Sequence[Any], modality: str) -> list[Found]:
    """Return scored points as what is found.

    Args:
        points: the engine's or the server's.
        modality: of the vectors that were searched.
    """
    found = []
    for point in points:
        payload, score = point.payload, point.score
        score = score if -1.0 <= score <= 1.0 else cosine(score)  # rounding alone
        found.append(Found(payload["key"], payload["group"], modality, score, payload["metadata"]))
    return found


def merged(found: Sequence[list[Found]], modalities: int, count: int) -> list[list[Found]]:
    """Return what is found for each query, from what is found for each query in each modality.

    Args:
        found: for each query, one list for each modality.
        modalities: number of modalities.
        count: number of vectors of a query.
    """
    if modalities == 1:
        return list(found)
    of_queries = (chain(*found[start : start + modalities]) for start in range(0, len(found), modalities))
    return [sorted(of_query, key=lambda one: -one.score)[:count] for of_query in of_queries]


def found_by_words(points: Sequence[Any], query: np.ndarray, names: Mapping[str, str]) -> list[tuple[float, Found]]:
    """Return the points that words have found, each with its score by words and the cosine of its nearest vector.

    Args:
        points: the engine's or the server's, with vectors.
        query: ``(dim,)`` float32 of unit length.
        names: modality -> name of its vectors.
    """
    found = []
    for point in points:
        cosines = {m: float(query @ np.float32(point.vector[n])) for m, n in names.items() if n in point.vector}
        best = max(cosines, key=cosines.__getitem__)
        payload = point.payload
        one = Found(payload["key"], payload["group"], best, cosine(cosines[best]), payload["metadata"])
        found.append((point.score, one))
    return found


def stored_of_points(points: Iterable[Any], names: Mapping[str, str], dim: int) -> tuple[np.ndarray, pa.Table]:
    """Return the vectors of points and their descriptions, as ``Engine.select`` defines them.

    Args:
        points: the engine's or the server's, with vectors.
        names: modality -> name of its vectors.
        dim: width of the vectors.
    """
    vectors: list[np.ndarray] = []  # a number takes eight times the memory as an object of Python
    items: list[dict[str, Any]] = []
    for point in points:
        for modality, name in names.items():
            if name in (point.vector or {}):
                vectors.append(np.array(point.vector[name], np.float32))
                items.append({**point.payload, "modality": modality})
    return np.array(vectors, np.float32).reshape(-1, dim), pa.Table.from_pylist(items, ITEM_SCHEMA)


def cosine(score: float) -> float:
    """Return a score within [-1, 1], beyond which rounding may lead.

    Args:
        score: the dot product of unit vectors.

    Examples:
        >>> cosine(1.0000001)
        1.0
    """
    return min(1.0, max(-1.0, score))
