"""A Milvus cluster: approximate search (HNSW) of a collection whose rows are single vectors.

A row of a part of embeddings is stored once for each of its modalities: its vector, key, group, metadata (JSON), words, the
texts that conditions compare with as ``cells``, such as ``c0=Arrows`` for the first column, and the numbers and dates that
ranges compare as ``ranges`` (JSON). The id is that of the row with the
number of the modality, so that a row that comes again takes the place of the old one. Milvus weighs the words (BM25).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from multimodal.core.conditions import SIGNS, Range, Where
from multimodal.core.errors import MultimodalError, shown
from multimodal.search.engines.address import Address
from multimodal.search.engines.cluster import FLOATS, About, ClusterEngine, current
from multimodal.search.engines.engine import ITEM_SCHEMA, Found
from multimodal.search.engines.exact import ExactEngine
from multimodal.search.engines.fusion import CANDIDATES, fuse
from multimodal.search.engines.layout import search_texts
from multimodal.search.engines.milvus_server import LONGEST, MOST_CELLS
from multimodal.search.engines.qdrant_points import OVERSAMPLED, PAGE, cosine, ids_of, neighbours_kept
from multimodal.search.pieces import modalities_of, pieces_of

MOST_HITS = 16_384  # that Milvus returns
SHOWN = ["key", "group", "modality", "metadata"]
NEVER = 'id == ""'  # as the language has no empty lists


class MilvusEngine(ClusterEngine):
    """Approximate search by a Milvus server; ``multimodal.search.engines.open`` opens and builds it.

    Args:
        server: has the collections.
        address: which of them.
        collection: name of the collection itself, where ``address`` has its alias.
        about: its description.

    Examples:
        >>> from multimodal.search.engines.layout import Layout
        >>> from multimodal.search.engines.open import check_engine
        >>> check_engine("milvus+http://localhost:19530/shop", Layout(dim=2, quantization="int8"))  # fits this engine
    """

    def __init__(self, server: Any, address: Address, collection: str, about: About) -> None:
        super().__init__(server, address, collection, about)
        with self.errors():
            server.load(collection, address)

    @current
    def count(self, modality: str) -> int:
        """Return the number of stored vectors of a modality.

        Args:
            modality: one of ``modalities``.
        """
        chosen = _is_one_of("modality", [modality])
        return self.server.client.query(self.collection, filter=chosen, output_fields=["count(*)"])[0]["count(*)"]

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
            count: number of vectors to find for each query, at least 1; Milvus finds at most 16,384.
            modality: search only the vectors of this modality. None: all.
            where: search only the rows that meet these conditions.
            exact: compare every vector. Milvus cannot, so that all of them are read and compared here.

        Returns:
            For each query, what is found, the best first.
        """
        if exact:
            return ExactEngine(*self.select(modality, where)).nearest(queries, count)
        at_once = self.rows_at_once(self.dim)
        found = []
        for start in range(0, len(queries), at_once):
            answers = self.server.client.search(
                self.collection,
                data=queries[start : start + at_once].tolist(),
                anns_field="vector",
                filter=self._conditions(modality, where),
                limit=min(count, MOST_HITS),
                search_params={"params": self._parameters(count, where)},
                output_fields=SHOWN,
            )
            found += [[_found(hit["entity"], hit["distance"]) for hit in answer] for answer in answers]
        return found

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
        searched = self.modalities if modality is None else [modality]
        several = max(count, CANDIDATES)
        by_vectors = [self.nearest(query[None], several, name, where)[0] for name in searched]
        hits = []
        if any(character.isalnum() for character in words):
            hits = self.server.client.search(
                self.collection,
                data=[words],
                anns_field="weights",
                filter=self._conditions(modality, where),
                limit=min(len(searched) * several, MOST_HITS),  # a row is found once for each modality
                output_fields=[*SHOWN, "vector"],
            )[0]
        by_words = [
            (hit["distance"], _found(hit["entity"], float(query @ np.float32(hit["entity"]["vector"])))) for hit in hits
        ]
        return fuse(by_vectors, by_words, words, count)

    def _upsert(self, part: pa.Table, replaces: bool) -> None:
        client = self.server.client
        modalities = modalities_of(part)
        metadata = part["metadata"].to_pylist()
        described = [json.loads(text) for text in metadata]
        keys, groups = part["key"].to_pylist(), part["group"].to_pylist()
        self.widen(modalities, described, keys, groups)
        if len(self.columns) > MOST_CELLS:
            raise MultimodalError(f"The rows have {len(self.columns):,} columns; Milvus takes at most {MOST_CELLS:,}.")
        about = []
        for row, number in enumerate(ids_of(keys)):
            cells = [f"{name}={text}" for name, text in self.layout.where_of(described[row]).items()]
            fields = {"key": keys[row], "group": groups[row], "metadata": metadata[row]}
            fields["words"] = search_texts(keys[row], described[row])
            _check_lengths(fields)
            about.append({"id": number.hex, **fields, "cells": cells})
            if self.layout.ranges is not None:  # else the collection has no such field
                about[-1]["ranges"] = self.layout.ranges_of(described[row])
        vectors = self._vectors_of(part, modalities)
        at_once = self.rows_at_once(len(modalities) * self.dim)
        for start in range(0, len(part), at_once):
            rows = range(start, min(start + at_once, len(part)))
            stored = []
            for row in rows:
                for position, (modality, vector) in enumerate(vectors[row].items()):
                    number = f"{about[row]['id']}-{self.modalities.index(modality)}"
                    one = {"id": number, "modality": modality, "vector": vector, "first": position == 0}
                    stored.append({**about[row], **one})
            if stored:
                client.upsert(self.collection, stored)
            if replaces:  # alternatives and modalities that a row had and has no longer
                now = _is_one_of("id", [one["id"] for one in stored])
                same = _is_one_of("key", list(dict.fromkeys(keys[row] for row in rows)))
                client.delete(self.collection, filter=f"{same} and not ({now})")

    def _vectors_of(self, part: pa.Table, modalities: Sequence[str]) -> list[dict[str, list[float]]]:
        """Return the vectors of each row of a part."""
        of_rows: list[dict[str, list[float]]] = [{} for _ in range(len(part))]
        for modality in modalities:
            present = np.flatnonzero(part[modality].is_valid().to_numpy())
            for vectors, _ in pieces_of(part, [modality], self.dim):
                for row, vector in zip(present.tolist(), vectors, strict=True):
                    of_rows[row][modality] = vector.tolist()
        return of_rows

    @current
    def _remove(self, keys: list[str]) -> int:
        chosen = _is_one_of("key", keys)
        there = {row["key"] for row in self._rows(chosen, ["key"])}
        self.server.client.delete(self.collection, filter=chosen)
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
        chosen = [condition for condition in [self._conditions(modality, where)] if condition]
        if keys is not None:
            chosen.append(_is_one_of("key", list(keys)))
        vectors, items = [], []
        for row in self._rows(" and ".join(chosen), [*SHOWN, "vector"]):
            vectors.append(np.float32(row["vector"]))
            items.append({name: row[name] for name in SHOWN})
        return np.array(vectors, np.float32).reshape(-1, self.dim), pa.Table.from_pylist(items, ITEM_SCHEMA)

    @current
    def facets(self, column: str, where: Where | None = None, limit: int = 20) -> dict[str, int]:
        """Return the most frequent values of a column, with their numbers of rows (of a row with alternatives, each counts).

        Milvus does not count values, so that those of all rows are read; this takes long for many rows.

        Args:
            column: one of ``columns``.
            where: only the rows that meet these conditions.
            limit: number of values.
        """
        conditions = self._conditions(None, where)
        chosen = f"first == true and {conditions}" if conditions else "first == true"
        start = self._cell(column, "")
        counts = Counter(
            cell.removeprefix(start)
            for row in self._rows(chosen, ["cells"])
            for cell in row["cells"]
            if cell.startswith(start)
        )
        return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:limit])

    def _cell(self, column: str, text: str) -> str:
        return f"c{self.columns.index(column)}={text}"

    def _conditions(self, modality: str | None, where: Where | None) -> str:
        """Return conditions in Milvus' language; empty if there are none."""
        chosen = [] if modality is None else [_is_one_of("modality", [modality])]
        for column, values in (where or {}).items():
            if isinstance(values, Range):
                chosen += self._within(column, values)
                continue
            cells = ", ".join(_quoted(self._cell(column, value)) for value in values)
            chosen.append(f"array_contains_any(cells, [{cells}])" if cells else NEVER)
        return " and ".join(chosen)

    def _within(self, column: str, wanted: Range) -> list[str]:
        field = f'ranges["{self.layout.range_name(column, wanted.kind)}"]'
        return [f"{field} {SIGNS[name]} {bound!r}" for name, bound in wanted.bounds.items()]

    def _parameters(self, count: int, where: Where | None) -> dict[str, Any]:
        parameters = {"ef": min(neighbours_kept(count, where), MOST_HITS)}
        return parameters if self.layout.quantization is None else {**parameters, "refine_k": OVERSAMPLED["int8"]}

    def _rows(self, chosen: str, fields: list[str]) -> Iterator[dict[str, Any]]:
        """Yield fields of the stored rows that meet conditions."""
        at_once = max(1, min(4 * PAGE, 4 * FLOATS // self.dim)) if "vector" in fields else 4 * PAGE
        pages = self.server.client.query_iterator(
            self.collection, batch_size=at_once, filter=chosen, output_fields=fields
        )
        try:
            while page := pages.next():
                yield from page
        finally:
            pages.close()


def _found(stored: dict[str, Any], score: float) -> Found:
    return Found(stored["key"], stored["group"], stored["modality"], cosine(score), stored["metadata"])


def _is_one_of(field: str, values: Sequence[str]) -> str:
    return f"{field} in [{', '.join(map(_quoted, values))}]" if values else NEVER


def _quoted(text: str) -> str:
    """Return a text as Milvus' language writes it; it knows no escapes for other characters, and needs none."""
    for character, written in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(character, written)
    return f'"{text}"'


def _check_lengths(fields: dict[str, str]) -> None:
    for name, text in fields.items():
        if (size := len(text.encode())) > LONGEST:
            raise MultimodalError(
                f"The {name} of the row {shown(fields['key'])!r} has {size:,} bytes; Milvus stores at most {LONGEST:,}."
                " Embed fewer columns, or index it with another engine."
            )
