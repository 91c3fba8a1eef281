"""Qdrant's engine in this process: approximate search (HNSW) of a folder, whose changes are durable.

A point is a row of a part of embeddings: a named vector for each of its modalities, a sparse vector of its words, and its key,
group, metadata (JSON) and the texts that conditions compare with. Its id is derived from its key, so that a row that comes
again takes the place of the old one. The engine's log makes a change durable before it is acknowledged.

The engine can be open in one process at a time; within it, those who open the same folder share it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakValueDictionary, finalize

import numpy as np
import pyarrow as pa
import qdrant_edge as qdrant

from multimodal.core.conditions import Kind, Where
from multimodal.core.system_errors import check_space
from multimodal.search.engines.engine import Found, IndexReplaced
from multimodal.search.engines.engine_folder import (
    OPENING,
    Identity,
    errors_of,
    identity_of,
    keep_open,
    lock_of,
    locked,
)
from multimodal.search.engines.fusion import CANDIDATES, fuse
from multimodal.search.engines.layout import WORDS, Layout, search_texts
from multimodal.search.engines.qdrant_points import (
    ACORN_SHARE,
    COMPARED,
    OVERSAMPLED,
    PAGE,
    PREFIX_OVERSAMPLED,
    SHOWN,
    conditions_of,
    found_by_words,
    found_of,
    ids_of,
    lists_values,
    merged,
    neighbours_kept,
    shard_config,
    stored_of_points,
    vectors_of_rows,
    word_weights,
)
from multimodal.search.pieces import modalities_of

SHARD = "shard"
POINTS = 512  # written at a time
CHUNK = 2**25  # bytes of the smallest file of a segment's vectors
COPIES = 3  # of rows that are written: in the log, the vectors, and the descriptions with their index
INDEXES = {"keyword": qdrant.PayloadSchemaType.Keyword, "float": qdrant.PayloadSchemaType.Float}
REMEMBERED = 256  # conditions
LONGEST = 4096  # characters of a condition that is remembered; thousands of values would take megabytes

_OPEN: WeakValueDictionary[Identity, QdrantEdgeEngine] = WeakValueDictionary()


class Chosen(NamedTuple):
    """The rows that meet conditions.

    Attributes:
        where: the conditions.
        filter: the conditions in the engine's form.
        estimate: the engine's estimate of the number of rows.
    """

    where: Where
    filter: qdrant.Filter
    estimate: int


class QdrantEdgeEngine:
    """Approximate search of a folder by Qdrant's own engine, without a server.

    Use ``create`` for a new folder, ``open`` for an existing one.

    Args:
        folder: the folder.
        layout: what is stored in it.
        shard: the engine's open shard.
        files: releases the lock on the folder.

    Examples:
        >>> engine = QdrantEdgeEngine.create(Path("engine"), Layout(dim=2, modalities=["text"]))
        >>> vectors = pa.array([[0.6, 0.8]], pa.list_(pa.float32(), 2))
        >>> row = {"key": ["a"], "group": ["a"], "metadata": ['{"set": "x"}'], "text": vectors}
        >>> engine.upsert([pa.table(row)])
        >>> [(found.key, round(found.score, 2)) for found in engine.nearest(np.float32([[1, 0]]), 5, "text")[0]]
        [('a', 0.6)]
        >>> engine.facets("set"), engine.remove(["a"])
        ({'x': 1}, 1)
        >>> engine.close()
    """

    name = "qdrant-edge"

    def __init__(self, folder: Path, layout: Layout, shard: qdrant.EdgeShard, files: ExitStack) -> None:
        self.folder, self.layout, self._shard, self._files = folder, layout, shard, files
        self.dim, self._users = layout.dim, 1
        self._identity = identity_of(folder)
        self._close = finalize(self, _release, shard, files)  # also where nobody closes it
        self._changing = threading.Lock()
        self._words = word_weights(layout)
        self._chosen: dict[str, Chosen] = {}  # of the last conditions, until rows change

    @classmethod
    def create(cls, folder: Path, layout: Layout) -> QdrantEdgeEngine:
        """Create an empty engine in a folder.

        Args:
            folder: a new folder.
            layout: what is to be stored.
        """
        folder = folder.absolute()
        (folder / SHARD).mkdir(parents=True)
        check_space(folder, _allocated(layout))
        files = ExitStack()
        files.enter_context(locked(folder))
        with errors_of(folder):
            shard = qdrant.EdgeShard.create(str(folder / SHARD), shard_config(layout))
            shard.update(qdrant.UpdateOperation.create_field_index("key", qdrant.PayloadSchemaType.Keyword))
        layout.write(folder)
        return cls(folder, layout, shard, files)

    @classmethod
    def open(cls, folder: Path) -> QdrantEdgeEngine:
        """Open the engine in a folder; the folder is shared with those of this process who have it open.

        Args:
            folder: the folder.

        Raises:
            MultimodalError: another process has it open, or it is damaged.
        """
        folder = folder.resolve()
        with lock_of(folder):
            with OPENING:
                if (opened := _OPEN.get(identity_of(folder))) is not None:
                    opened._users += 1
                    return opened
            with ExitStack() as files:
                keep_open(folder, files)
                files.enter_context(locked(folder))
                layout = Layout.read(folder)
                with errors_of(folder):
                    shard = qdrant.EdgeShard.load(str(folder / SHARD))
                engine = cls(folder, layout, shard, files.pop_all())
            with OPENING:
                _OPEN[engine._identity] = engine
            return engine

    @staticmethod
    @contextmanager
    def replacing(folder: Path) -> Iterator[None]:
        """Replace the engine's folder in the block; those of this process who have it open continue to read the old files.

        Args:
            folder: the folder.

        Raises:
            MultimodalError: another process has it open.
        """
        folder = folder.resolve()
        with lock_of(folder), ExitStack() as lock:
            with OPENING:
                opened = _OPEN.get(identity_of(folder))
            if opened is None and folder.exists():
                lock.enter_context(locked(folder))
            yield
            if opened is not None:
                with OPENING:
                    _OPEN.pop(opened._identity, None)
                opened._files.close()  # so that the new folder can be locked

    @property
    def modalities(self) -> list[str]:
        """The modalities of the stored vectors."""
        return list(self.layout.modalities)

    @property
    def columns(self) -> list[str]:
        """The columns of the metadata."""
        return list(self.layout.columns)

    @property
    def grouped(self) -> bool:
        """Whether several rows may be in one group."""
        return self.layout.grouped

    def count(self, modality: str) -> int:
        """Return the number of stored vectors of a modality.

        Args:
            modality: one of ``modalities``.
        """
        with errors_of(self.folder):
            has_it = qdrant.Filter(must=[qdrant.HasVectorCondition(self.layout.vectors_of(modality))])
            return self._shard.count(qdrant.CountRequest(filter=has_it))

    def kinds(self, column: str) -> set[Kind]:
        """Return what ranges of a column can compare, as ``Engine.kinds`` defines it.

        Args:
            column: one of ``columns``.
        """
        return self.layout.kinds(column)

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
        if not len(queries) or not searched:
            return [[] for _ in queries]
        chosen = self._rows_meeting(where) if where else None
        exact = exact or (chosen is not None and chosen.estimate <= COMPARED)  # the graph would miss some of a few rows
        asked = [(query, name) for query in queries for name in searched]
        requests = [self._request(query, count, name, chosen, exact) for query, name in asked]
        with errors_of(self.folder):
            if len(requests) == 1:  # a batch would cost as much again
                answers = [self._shard.query(requests[0])]
            else:
                answers = self._shard.query_batch(qdrant.QueryBatchRequest(requests)) if requests else []
            if chosen is not None and not exact:
                # Where the graph led to fewer than are asked for, each row that meets the condition is compared.
                answers = [
                    points
                    if len(points) >= count
                    else self._shard.query(self._request(query, count, name, chosen, True))
                    for points, (query, name) in zip(answers, asked, strict=True)
                ]
        found = [found_of(points, name) for points, name in zip(answers, searched * len(queries), strict=True)]
        return merged(found, len(searched), count)

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
        sparse = self._words.embed_query(words)
        points = []
        if sparse.indices:
            has_one = qdrant.Filter(should=[qdrant.HasVectorCondition(name) for name in names.values()])
            request = qdrant.QueryRequest(
                several,
                query=qdrant.Query.Nearest(sparse, using=WORDS),
                filter=qdrant.Filter(must=[has_one, *conditions_of(self.layout, where)]),
                with_payload=SHOWN,
                with_vector=list(names.values()),
            )
            with errors_of(self.folder):
                points = self._shard.query(request)
        return fuse(by_vectors, found_by_words(points, query, names), words, count)

    def upsert(self, parts: Iterable[pa.Table]) -> None:
        """Add rows, in the place of those that have their keys; they are durable when this returns.

        Args:
            parts: parts of embeddings, see ``multimodal.search.embed``; vectors are float32 of unit length.
        """
        size = 0
        with self._change():
            replaces = self._shard.count(qdrant.CountRequest()) > 0
            for part in parts:
                size += part.nbytes
                check_space(self.folder, COPIES * part.nbytes)
                self._upsert(part, replaces)
            check_space(self.folder, size + _allocated(self.layout))

    def _upsert(self, part: pa.Table, replaces: bool) -> None:
        modalities = modalities_of(part)
        metadata = part["metadata"].to_pylist()
        described = [json.loads(text) for text in metadata]
        keys, groups = part["key"].to_pylist(), part["group"].to_pylist()
        self._widen(modalities, described, keys, groups)
        ids, vectors = ids_of(keys), vectors_of_rows(self.layout, part, modalities)
        for start in range(0, len(part), POINTS):
            rows = range(start, min(start + POINTS, len(part)))
            points = []
            for row in rows:
                payload = {"key": keys[row], "group": groups[row], "metadata": metadata[row]}
                payload["where"] = self.layout.where_of(described[row])
                payload["range"] = self.layout.ranges_of(described[row])
                if words := search_texts(keys[row], described[row]):
                    vectors[row][WORDS] = self._words.embed_document(words)
                points.append(qdrant.Point(ids[row], vectors[row], payload))
            self._shard.update(qdrant.UpdateOperation.upsert_points(points))
            if replaces:  # alternatives that a row had and has no longer
                now = qdrant.HasIdCondition({ids[row] for row in rows})
                same = qdrant.FieldCondition("key", match=qdrant.MatchAny([keys[row] for row in rows]))
                self._shard.update(
                    qdrant.UpdateOperation.delete_points_by_filter(qdrant.Filter(must=[same], must_not=[now]))
                )

    def _widen(
        self,
        modalities: Sequence[str],
        described: Sequence[dict[str, Any]],
        keys: Sequence[str],
        groups: Sequence[str],
    ) -> None:
        """Make room for columns, and kinds of their values, that the stored rows do not have."""
        self.layout.check_modalities(modalities)
        before, self.layout = self.layout, self.layout.with_rows(described, keys, groups)
        if self.layout != before:
            self.layout.write(self.folder)
        for field, kind in self.layout.new_fields(before).items():
            self._shard.update(qdrant.UpdateOperation.create_field_index(field, INDEXES[kind]))

    def remove(self, keys: Sequence[str]) -> int:
        """Remove rows, and return how many were there; they are gone for good when this returns.

        Args:
            keys: the keys of the rows.
        """
        removed = 0
        with self._change():
            for start in range(0, len(keys), PAGE):
                match = qdrant.MatchAny(list(keys[start : start + PAGE]))
                chosen = qdrant.Filter(must=[qdrant.FieldCondition("key", match=match)])
                there = {(point.payload or {})["key"] for point in self._scroll(chosen, ["key"], False)}
                self._shard.update(qdrant.UpdateOperation.delete_points_by_filter(chosen))
                removed += len(there)
        return removed

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Change the stored rows in the block, one thread at a time."""
        with self._changing, errors_of(self.folder):
            if identity_of(self.folder) != self._identity:  # what the engine writes would go to another index
                raise IndexReplaced(self.folder.parent)
            try:
                yield
                self._shard.flush()
                self._shard.optimize()  # until then, what is new is compared one by one
            finally:
                self._chosen = {}  # a search that runs now remembers in the old one

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
        conditions = conditions_of(self.layout, where)
        if keys is not None:
            conditions.append(qdrant.FieldCondition("key", match=qdrant.MatchAny(list(keys))))
        with errors_of(self.folder):
            points = self._scroll(qdrant.Filter(must=conditions), SHOWN, list(names.values()))
            return stored_of_points(points, names, self.dim)

    def facets(self, column: str, where: Where | None = None, limit: int = 20) -> dict[str, int]:
        """Return the most frequent values of a column, with their numbers of rows (of a row with alternatives, each counts).

        Args:
            column: one of ``columns``.
            where: only the rows that meet these conditions.
            limit: number of values.
        """
        chosen = qdrant.Filter(must=conditions_of(self.layout, where))
        with errors_of(self.folder):
            request = qdrant.FacetRequest(self.layout.field_of(column), limit=limit, exact=True, filter=chosen)
            return {str(hit.value): hit.count for hit in self._shard.facet(request).hits}

    def close(self) -> None:
        """Close the folder, unless another part of this process has it open too."""
        with OPENING:
            self._users -= 1
            if self._users <= 0:
                if _OPEN.get(self._identity) is self:
                    del _OPEN[self._identity]
                self._close()

    def _stage(self, query: np.ndarray, count: int, modality: str, chosen: Chosen | None) -> qdrant.Prefetch:
        """Return the search of the stored vectors, as the first stage of a query."""
        nearest = qdrant.Query.Nearest(
            self.layout.reduce(query[None])[0].tolist(), using=self.layout.vectors_of(modality)
        )
        where, meeting = (None, None) if chosen is None else (chosen.where, chosen.filter)
        return qdrant.Prefetch(count, query=nearest, params=self._parameters(count, where), filter=meeting)

    def _request(
        self, query: np.ndarray, count: int, modality: str, chosen: Chosen | None, exact: bool
    ) -> qdrant.QueryRequest:
        """Return the search for one query; a reduced vector finds the candidates, the full one orders them."""
        if self.layout.reduced and not exact:
            full = qdrant.Query.Nearest(query.tolist(), using=self.layout.full_vectors_of(modality))
            stage = self._stage(query, PREFIX_OVERSAMPLED * count, modality, chosen)
            return qdrant.QueryRequest(count, query=full, prefetches=[stage], with_payload=SHOWN)
        nearest = qdrant.Query.Nearest(query.tolist(), using=self.layout.full_vectors_of(modality))
        where, meeting = (None, None) if chosen is None else (chosen.where, chosen.filter)
        parameters = self._parameters(count, where, exact)
        return qdrant.QueryRequest(count, query=nearest, params=parameters, filter=meeting, with_payload=SHOWN)

    def _rows_meeting(self, where: Where) -> Chosen:
        """Return the rows that meet conditions; as somebody types, one condition is asked for with each letter."""
        remembered, name = self._chosen, repr(where)
        if (chosen := remembered.get(name)) is None:
            meeting = qdrant.Filter(must=conditions_of(self.layout, where))
            with errors_of(self.folder):
                estimate = self._shard.count(qdrant.CountRequest(exact=False, filter=meeting))
            chosen = Chosen(where, meeting, estimate)
            if len(name) <= LONGEST:
                if len(remembered) >= REMEMBERED:
                    remembered.clear()
                remembered[name] = chosen
        return chosen

    def _parameters(self, count: int, where: Where | None, exact: bool = False) -> qdrant.SearchParams:
        rescored = None
        if self.layout.quantization is not None:
            candidates = float(OVERSAMPLED[self.layout.quantization])
            rescored = qdrant.QuantizationSearchParams(rescore=True, oversampling=candidates, ignore=exact)
        acorn = qdrant.AcornSearchParams(True, ACORN_SHARE) if lists_values(where) and not exact else None
        kept = neighbours_kept(count, where)
        return qdrant.SearchParams(hnsw_ef=kept, exact=exact, quantization=rescored, acorn=acorn)

    def _scroll(self, chosen: qdrant.Filter, payload: list[str], vectors: list[str] | bool) -> Iterator[qdrant.Record]:
        offset = None
        while True:
            points, offset = self._shard.scroll(
                qdrant.ScrollRequest(
                    offset=offset, limit=PAGE, filter=chosen, with_payload=payload, with_vector=vectors
                )
            )
            yield from points
            if offset is None:
                return


def _allocated(layout: Layout) -> int:
    """Return the bytes that the engine takes for a new segment, however few rows it has."""
    return CHUNK * len(layout.modalities)


def _release(shard: qdrant.EdgeShard, files: ExitStack) -> None:
    shard.close()
    files.close()
