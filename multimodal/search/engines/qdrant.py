"""A Qdrant cluster: the embedded engine's data and searches, asked of a server.

A point is a row of a part of embeddings, as in ``qdrant_edge``: with the same id, named vectors, fields and weights of words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from qdrant_client import models

from multimodal.core.conditions import Range, Where
from multimodal.search.engines.cluster import ClusterEngine, current
from multimodal.search.engines.engine import Found
from multimodal.search.engines.fusion import CANDIDATES, fuse
from multimodal.search.engines.layout import WORDS, search_texts
from multimodal.search.engines.qdrant_points import (
    ACORN_SHARE,
    OVERSAMPLED,
    PAGE,
    PREFIX_OVERSAMPLED,
    SHOWN,
    found_by_words,
    found_of,
    ids_of,
    lists_values,
    merged,
    neighbours_kept,
    stored_of_points,
    vectors_of_rows,
    word_weights,
)
from multimodal.search.pieces import modalities_of


class QdrantEngine(ClusterEngine):
    """Approximate search by a Qdrant server; ``multimodal.search.engines.open`` opens and builds it.

    Examples:
        >>> from qdrant_client import QdrantClient
        >>> from multimodal.search.engines.address import Address
        >>> from multimodal.search.engines.cluster import About
        >>> from multimodal.search.engines.layout import Layout
        >>> from multimodal.search.engines.qdrant_server import QdrantServer
        >>> server, address = QdrantServer(QdrantClient(":memory:")), Address.parse("qdrant+http://localhost:6333/shop")
        >>> engine = QdrantEngine(server, address, "shop-1", About("shop", "f" * 64, Layout(2, ["text"])))
        >>> engine.name, engine.modalities, engine.dim
        ('qdrant+http://localhost:6333/shop', ['text'], 2)
    """

    @current
    def count(self, modality: str) -> int:
        """Return the number of stored vectors of a modality.

        Args:
            modality: one of ``modalities``.
        """
        has_it = models.HasVectorCondition(has_vector=self.layout.vectors_of(modality))
        chosen = models.Filter(must=[has_it])
        return self.server.client.count(self.collection, count_filter=chosen, exact=True).count

    @current
    def nearest(
        self,
        queries: np.ndarray,
        count: int,
        modality: str | None = None,
        where: Where | None = None,
        exact: bool = False,
    ) -> list[list[Found]]:
        """Find the stored vectors nearest to each query, as ``Engine.nearest`` defines it; now and then one is missed.

        Args:
            queries: ``(q, dim)`` float32 of unit length.
            count: number of vectors to find for each query, at least 1.
            modality: search only the vectors of this modality. None: all.
            where: search only the rows that meet these conditions.
            exact: compare every vector, so that none is missed.

        Returns:
            For each query, what is found, the best first.
        """
        searched = self.modalities if modality is None else [modality]
        if not searched:
            return [[] for _ in queries]
        requests = [self._request(query, count, name, where, exact) for query in queries for name in searched]
        at_once = self.rows_at_once(2 * self.dim)
        answers = []
        for start in range(0, len(requests), at_once):
            batch = requests[start : start + at_once]
            answers += self.server.client.query_batch_points(self.collection, requests=batch)
        names = searched * len(queries)
        found = [found_of(answer.points, name) for answer, name in zip(answers, names, strict=True)]
        return merged(found, len(searched), count)

    @current
    def nearest_by_words(
        self, query: np.ndarray, words: str, count: int, modality: str | None = None, where: Where | None = None
    ) -> list[Found]:
        """Find the rows that are nearest by vectors and words: BM25, fused by reciprocal ranks.

        Args:
            query: ``(dim,)`` float32 of unit length.
            words: the words to look for.
            count: number of rows to find, at least 1.
            modality: search only the vectors of this modality. None: all.
            where: search only the rows that meet these conditions.

        Returns:
            What is found, in the order of ``fuse``; the scores are still cosines.
        """
        names = self.layout.full_names(modality)
        several = max(count, CANDIDATES)
        by_vectors = [self.nearest(query[None], several, name, where)[0] for name in names]
        sparse = word_weights(self.layout).embed_query(words)
        points = []
        if sparse.indices:
            has_one = models.Filter(should=[models.HasVectorCondition(has_vector=name) for name in names.values()])
            points = self.server.client.query_points(
                self.collection,
                query=_sparse(sparse),
                using=WORDS,
                query_filter=models.Filter(must=[has_one, *self._conditions(where)]),
                limit=several,
                with_payload=SHOWN,
                with_vectors=list(names.values()),
            ).points
        return fuse(by_vectors, found_by_words(points, query, names), words, count)

    def _upsert(self, part: pa.Table, replaces: bool) -> None:
        client = self.server.client
        modalities = modalities_of(part)
        metadata = part["metadata"].to_pylist()
        described = [json.loads(text) for text in metadata]
        keys, groups = part["key"].to_pylist(), part["group"].to_pylist()
        before = self.layout
        self.widen(modalities, described, keys, groups)
        for field, kind in self.layout.new_fields(before).items():
            self.server.index_field(self.collection, field, kind)
        ids = [str(number) for number in ids_of(keys)]
        vectors = vectors_of_rows(self.layout, part, modalities)
        weights = word_weights(self.layout)
        at_once = self.rows_at_once(len(modalities) * (self.dim + (self.layout.width if self.layout.reduced else 0)))
        for start in range(0, len(part), at_once):
            rows = range(start, min(start + at_once, len(part)))
            points = []
            for row in rows:
                payload = {"key": keys[row], "group": groups[row], "metadata": metadata[row]}
                payload["where"] = self.layout.where_of(described[row])
                payload["range"] = self.layout.ranges_of(described[row])
                if words := search_texts(keys[row], described[row]):
                    vectors[row][WORDS] = _sparse(weights.embed_document(words))
                points.append(models.PointStruct(id=ids[row], vector=vectors[row], payload=payload))
            client.upsert(self.collection, points, wait=True)
            if replaces:  # alternatives that a row had and has no longer
                now = models.HasIdCondition(has_id=[ids[row] for row in rows])
                gone = models.Filter(must=[_is_one_of("key", [keys[row] for row in rows])], must_not=[now])
                client.delete(self.collection, models.FilterSelector(filter=gone), wait=True)

    @current
    def _remove(self, keys: list[str]) -> int:
        chosen = models.Filter(must=[_is_one_of("key", keys)])
        there = {point.payload["key"] for point in self._scroll(chosen, ["key"], False)}
        self.server.client.delete(self.collection, models.FilterSelector(filter=chosen), wait=True)
        return len(there)

    @current
    def select(
        self, modality: str | None = None, where: Where | None = None, keys: Sequence[str] | None = None
    ) -> tuple[np.ndarray, pa.Table]:
        """Return stored vectors and their descriptions, as ``Engine.select`` defines it.

        Args:
            modality: only the vectors of this modality. None: all.
            where: only the rows that meet these conditions.
            keys: only the rows with these keys.
        """
        names = self.layout.full_names(modality)
        conditions = self._conditions(where)
        if keys is not None:
            conditions.append(_is_one_of("key", list(keys)))
        points = self._scroll(models.Filter(must=conditions), SHOWN, list(names.values()))
        return stored_of_points(points, names, self.dim)

    @current
    def facets(self, column: str, where: Where | None = None, limit: int = 20) -> dict[str, int]:
        """Return the most frequent values of a column, with their numbers of rows (of a row with alternatives, each counts).

        Args:
            column: one of ``columns``.
            where: only the rows that meet these conditions.
            limit: number of values.
        """
        chosen = models.Filter(must=self._conditions(where))
        field = self.layout.field_of(column)
        hits = self.server.client.facet(self.collection, field, facet_filter=chosen, limit=limit, exact=True).hits
        return {str(hit.value): hit.count for hit in hits}

    def _conditions(self, where: Where | None) -> list[Any]:
        return [
            models.FieldCondition(key=self.layout.range_field(column, wanted.kind), range=models.Range(**wanted.bounds))
            if isinstance(wanted, Range)
            else _is_one_of(self.layout.field_of(column), list(wanted))
            for column, wanted in (where or {}).items()
        ]

    def _stage(self, query: np.ndarray, count: int, modality: str, where: Where | None) -> models.Prefetch:
        """Return the search of the stored vectors, as the first stage of a query."""
        return models.Prefetch(
            query=self.layout.reduce(query[None])[0].tolist(),
            using=self.layout.vectors_of(modality),
            filter=self._filter(where),
            params=self._parameters(count, where),
            limit=count,
        )

    def _request(
        self, query: np.ndarray, count: int, modality: str, where: Where | None, exact: bool
    ) -> models.QueryRequest:
        """Return the search for one query; a reduced vector finds the candidates, the full one orders them."""
        full = {"query": query.tolist(), "using": self.layout.full_vectors_of(modality)}
        if self.layout.reduced and not exact:
            stage = self._stage(query, PREFIX_OVERSAMPLED * count, modality, where)
            return models.QueryRequest(**full, prefetch=stage, limit=count, with_payload=SHOWN)
        parameters = self._parameters(count, where, exact)
        chosen = self._filter(where)
        return models.QueryRequest(**full, filter=chosen, params=parameters, limit=count, with_payload=SHOWN)

    def _filter(self, where: Where | None) -> models.Filter | None:
        return models.Filter(must=self._conditions(where)) if where else None

    def _parameters(self, count: int, where: Where | None, exact: bool = False) -> models.SearchParams:
        rescored = None
        if self.layout.quantization is not None:
            candidates = float(OVERSAMPLED[self.layout.quantization])
            rescored = models.QuantizationSearchParams(rescore=True, oversampling=candidates, ignore=exact)
        acorn = None
        if lists_values(where) and not exact:
            acorn = models.AcornSearchParams(enable=True, max_selectivity=ACORN_SHARE)
        kept = neighbours_kept(count, where)
        return models.SearchParams(hnsw_ef=kept, exact=exact, quantization=rescored, acorn=acorn)

    def _scroll(self, chosen: models.Filter, payload: list[str], vectors: list[str] | bool) -> Iterator[Any]:
        at_once = self.rows_at_once(len(vectors) * self.dim) if isinstance(vectors, list) else PAGE
        offset = None
        while True:
            points, offset = self.server.client.scroll(
                self.collection,
                scroll_filter=chosen,
                limit=at_once,
                offset=offset,
                with_payload=payload,
                with_vectors=vectors,
            )
            yield from points
            if offset is None:
                return


def _is_one_of(field: str, values: list[str]) -> models.FieldCondition:
    return models.FieldCondition(key=field, match=models.MatchAny(any=values))


def _sparse(weights: Any) -> models.SparseVector:
    return models.SparseVector(indices=list(weights.indices), values=list(weights.values))
