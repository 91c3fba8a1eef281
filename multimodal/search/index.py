"""Index: searchable embeddings with their keys, groups and metadata.

The folder of an index contains ``index.json`` (format, count, fingerprint of the model, settings of the table, digests of the
files), ``vectors.npy`` (``(n, dim)`` float32, memory-mapped) and ``items.parquet`` (``key``, ``group``, ``modality`` and
``metadata`` of each vector). Search with vectors does not need torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pyarrow as pa

from multimodal.core.arguments import check_types
from multimodal.core.digests import FILES, check_file
from multimodal.core.errors import MultimodalError, UsageError, check_names, suggest
from multimodal.core.files import check_folder
from multimodal.core.html_table import html_table
from multimodal.search.embedding_folder import read_manifest, read_parts
from multimodal.search.engines.engine import Engine
from multimodal.search.engines.exact import ExactEngine
from multimodal.search.hits import Hit, HitLists, Hits
from multimodal.search.index_folder import (
    ITEM_SCHEMA,
    VECTORS,
    pieces_of,
    read_index_folder,
    write_index_folder,
)
from multimodal.search.unit_vectors import describe_vector, not_unit

if TYPE_CHECKING:
    from multimodal.core.embedder import Embedder
    from multimodal.search.pictures import Pictures

VALUE_EXAMPLE = "For a value: search(text='a red cup')."
CHECKED_AT_OPEN = 64 << 20  # bytes of vectors that are checked when an index is opened; more are at their first use
CANDIDATES = 4  # vectors examined for each hit, because several may be in one group


class Index:
    """Searchable vectors of a table's rows, with their keys and metadata.

    Search is exact and ranks by cosine. Each group (rows that match one another, such as pictures of one object and its
    name) is found once, by its best vector.

    Args:
        vectors: ``(n, dim)`` float32 of unit length.
        items: n rows with the columns ``key``, ``group``, ``modality`` and ``metadata`` (JSON), all strings.
        fingerprint: fingerprint of the model that computed the vectors.
        data: settings with which the embedded table was opened (``Samples.settings``); None: unknown.
        embedder: the model, for queries that are raw values.

    Examples:
        >>> import numpy as np
        >>> rows = {"key": ["a", "b"], "group": ["a", "b"], "modality": ["text"] * 2, "metadata": ['{}'] * 2}
        >>> index = Index(np.eye(2, dtype=np.float32), pa.table(rows), "f" * 64)
        >>> index.search(np.array([[0.6, 0.8]]), k=1)[0][0].key
        'b'
    """

    def __init__(
        self,
        vectors: np.ndarray,
        items: pa.Table,
        fingerprint: str,
        data: Mapping[str, Any] | None = None,
        embedder: Embedder | None = None,
    ) -> None:
        self._vectors, self.items, self.fingerprint = vectors, items, fingerprint
        self._checked = False
        self._file: tuple[Path, Any] | None = None  # that the vectors are mapped from, and its entry in the manifest
        self.data, self.embedder = data, embedder
        self.engine: Engine = ExactEngine(vectors)
        modality = items["modality"].combine_chunks().dictionary_encode()
        self._modality, self.modalities = modality.indices.to_numpy(), modality.dictionary.to_pylist()
        self._group = items["group"].combine_chunks().dictionary_encode().indices.to_numpy()
        self._pictures: Pictures | None = None

    def __repr__(self) -> str:
        counts = ", ".join(f"{modality} {count}" for modality, count in self._counts())
        return f"Index of {len(self):,} vectors ({counts or 'empty'}), {self.dim} wide"

    def _repr_html_(self) -> str:
        """The number of vectors of each modality, for a notebook."""
        title = f"Index of {len(self):,} vectors, {self.dim} wide"
        return html_table(("modality", "vectors"), self._counts(), title)

    def _counts(self) -> list[tuple[str, str]]:
        return [(m, f"{np.count_nonzero(self._modality == n):,}") for n, m in enumerate(self.modalities)]

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self._vectors.shape[1]

    @property
    def vectors(self) -> np.ndarray:
        """The vectors, ``(n, dim)`` float32 of unit length; they are compared with their digest at the first use.

        Raises:
            MultimodalError: the file is damaged, or a vector is not finite or not of unit length.
        """
        if not self._checked:
            where = "The index"
            if self._file is not None:
                check_file(*self._file, "Build the index again.")
                where = str(self._file[0])
            if len(wrong := not_unit(self._vectors)):
                raise MultimodalError(
                    f"{where} has {len(wrong):,} vectors that are not of unit length, the first in row {wrong[0]}"
                    f" ({describe_vector(self._vectors[wrong[0]])}); build it again."
                )
            self._checked = True
        return self._vectors

    @overload
    def search(self, vectors: np.ndarray, k: int = 10, target: str | None = None) -> HitLists: ...

    @overload
    def search(self, *, k: int = 10, target: str | None = None, **query: Any) -> Hits: ...

    def search(
        self, vectors: np.ndarray | None = None, k: int = 10, target: str | None = None, **query: Any
    ) -> HitLists | Hits:
        """Find the k nearest groups of each query, the nearest first; fewer if there are no more.

        Args:
            vectors: ``(q, dim)`` queries of any length but 0; only their directions count, as scores are cosines.
            k: number of hits for each query, at least 1.
            target: search only the vectors of this modality. None: all vectors.
            **query: instead of vectors, one value of one modality: ``text="a red cup"``, ``image="cup.png"``. The index must
                know its model, see ``open``.

        Returns:
            The hits of each query; for a value, its hits.

        Raises:
            UsageError: k is below 1, the vectors have another width or are not finite numbers, the modality is unknown, or
                the index does not know its model.
            MultimodalError: the index is damaged.
        """
        check_types("search", Index.search, {"k": k, "target": target})
        if vectors is not None or len(query) > 1:
            modalities = [*self.modalities, *(() if self.embedder is None else self.embedder.modalities)]
            check_names("search", query, {*modalities, "vectors", "k", "target"})
        if (vectors is None) == (not query) or len(query) > 1 or isinstance(vectors, str):
            raise UsageError(f"search takes either vectors or one value of one modality. {VALUE_EXAMPLE}")
        if vectors is None:
            if self.embedder is None:
                raise UsageError("This index does not know its model: open it by Index.open(folder, model=RUN).")
            one = {modality: [value] for modality, value in query.items()}
            return self._search(self.embedder.encode(batch_size=256, precision="float32", **one), k, target)[0]
        return self._search(vectors, k, target)

    def _search(self, vectors: np.ndarray, k: int, target: str | None) -> HitLists:
        try:
            with np.errstate(over="ignore"):  # of numbers beyond float32, which are reported as infinite
                vectors = np.asarray(vectors, dtype=np.float32)
        except (ValueError, TypeError) as error:
            raise UsageError(f"The queries are not vectors ({error}). {VALUE_EXAMPLE}") from error
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            hint = " For one vector: search(vector[None])[0]." if vectors.shape == (self.dim,) else ""
            raise UsageError(f"The queries have shape {vectors.shape}, the index takes (q, {self.dim}).{hint}")
        if not (finite := np.isfinite(vectors).all(axis=1)).all():
            raise UsageError(f"Query {int(np.argmin(finite))} is not finite: it has NaN or infinite numbers.")
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        if not lengths.all():
            raise UsageError(f"Query {int(np.argmin(lengths))} has length 0: it has no direction to search in.")
        vectors = (vectors / lengths).astype(np.float32)
        if k < 1:
            raise UsageError(f"k must be at least 1, got {k}.")
        if target is not None and target not in self.modalities:
            raise UsageError(f"The index holds no {target!r} vectors.{suggest(target, self.modalities)}")
        among = None
        if target is not None:
            among = np.flatnonzero(self._modality == self.modalities.index(target))
        _ = self.vectors  # that are not checked yet
        searched = len(self) if among is None else len(among)
        wanted = CANDIDATES * k
        hits = HitLists()
        for query, found in zip(vectors, self.engine.nearest(vectors, wanted, among), strict=True):
            count = wanted
            while (best := self._best_of_groups(found[0]))[k - 1 : k].size == 0 and count < searched:
                count *= CANDIDATES  # too few groups among them
                found = self.engine.nearest(query[None], count, among)[0]
            rows, scores = found
            hits.append(Hits(self._hit(int(rows[i]), float(scores[i])) for i in best[:k]))
        return hits

    def _best_of_groups(self, rows: np.ndarray) -> np.ndarray:
        """Return the positions of the first row of each group, ascending."""
        return np.sort(np.unique(self._group[rows], return_index=True)[1])

    def _hit(self, row: int, score: float) -> Hit:
        item = self.items.slice(row, 1).to_pylist()[0]
        picture_of = None if self._pictures is None else self._pictures.of
        return Hit(item["key"], item["modality"], score, json.loads(item["metadata"]), picture_of)

    def with_pictures(self, table: Any = None) -> Index:
        """Return the same index, whose hits also show the pictures of their rows in a notebook.

        An index that ``from_table`` made has them already.

        Args:
            table: the ``Samples`` or the ``DataModule`` that were embedded. None: the table is opened again with the settings
                of the embedding.

        Raises:
            UsageError: the index does not know its table, or the table has no modality "image".
        """
        from multimodal.search.pictures import Pictures

        other = self._like(self.vectors, self.items)
        other._pictures = Pictures.of_index(self.data, getattr(table, "samples", table))
        return other

    def filter(self, modality: str | None = None, **metadata: Any) -> Index:
        """Return the index of the rows that have the given values.

        Args:
            modality: keep only the vectors of this modality.
            **metadata: column -> its value, or a list of values of which a row must have one.

        Raises:
            UsageError: the index has no such modality, or no row has such a column.
        """
        keep = np.ones(len(self), dtype=bool)
        if modality is not None:
            if modality not in self.modalities:
                raise UsageError(f"The index holds no {modality!r} vectors.{suggest(modality, self.modalities)}")
            keep &= self._modality == self.modalities.index(modality)
        if metadata:
            rows = [json.loads(text) for text in self.items["metadata"].to_pylist()]
            known = {name for row in rows for name in row}
            for name, wanted in metadata.items():
                if name not in known:
                    raise UsageError(f"No row of the index has {name!r}.{suggest(name, sorted(known))}")
                values = wanted if isinstance(wanted, list | tuple | set) else [wanted]
                keep &= np.array([row.get(name) in values for row in rows], dtype=bool)
        chosen = np.flatnonzero(keep)
        return self._like(self.vectors[chosen], self.items.take(chosen))

    def _like(self, vectors: np.ndarray, items: pa.Table) -> Index:
        other = Index(vectors, items, self.fingerprint, self.data, self.embedder)
        other._pictures, other._checked = self._pictures, True
        return other

    @classmethod
    def from_table(cls, embedder: Embedder, table: Any, *, split: str = "all", **settings: Any) -> Index:
        """Embed a table and index it, in memory.

        Args:
            embedder: the model.
            table: a table's name, a configuration, or in Python a ``DataModule``, ``Samples`` or a table in memory.
            split: the split to index, or "all".
            **settings: keys of ``data:``: ``columns={"image": "picture"}``, ``key``, ``group``, ... A ``DataModule`` has them.

        Raises:
            MultimodalError: the table or too many of its rows cannot be read, or a vector is not finite.
            UsageError: ``columns`` are missing for a table that needs them, or settings are given for a ``DataModule`` or
                ``Samples``.
        """
        from multimodal.data.run_data import SETTINGS, load_run_data
        from multimodal.search.embed import embed_in_memory
        from multimodal.search.pictures import MODALITY, Pictures

        check_names("Index.from_table", settings, SETTINGS)
        data = load_run_data(None, table, settings)
        part, modalities = embed_in_memory(embedder, data.samples, data.samples.rows(split), data.max_rejects)
        count = sum(len(part) - part[modality].null_count for modality in modalities)
        vectors, items, row = np.empty((count, embedder.dim), np.float32), [], 0
        for piece, described in pieces_of(part, modalities, embedder.dim):
            vectors[row : row + len(piece)] = piece
            items.append(described)
            row += len(piece)
        index = cls(vectors, pa.concat_tables(items), embedder.fingerprint, data.samples.settings, embedder)
        if MODALITY in data.samples.modalities:
            index._pictures = Pictures(data.samples)
        return index

    @classmethod
    def build(cls, embeddings: str | Path, out: str | Path) -> Index:
        """Build the index of a folder of embeddings at ``out``, replacing an existing index.

        Raises:
            MultimodalError: the embeddings are missing or incomplete, or a vector is not finite.
            UsageError: ``out`` is a file.
        """
        check_folder(out)
        embeddings, out = Path(embeddings), Path(out)
        manifest = read_manifest(embeddings)
        pieces = (p for part in read_parts(embeddings) for p in pieces_of(part, manifest.modalities, manifest.dim))
        description = {"fingerprint": manifest.fingerprint, "data": manifest.data}
        write_index_folder(out, pieces, manifest.dim, description)
        return cls.open(out)

    def save(self, folder: str | Path) -> None:
        """Write the index to a folder, replacing an existing index.

        Raises:
            MultimodalError: the folder contains something else.
        """
        description = {"fingerprint": self.fingerprint, "data": self.data}
        write_index_folder(Path(folder), [(self.vectors, self.items.select(ITEM_SCHEMA.names))], self.dim, description)

    @classmethod
    def open(cls, folder: str | Path, model: str | Path | Embedder | None = None) -> Index:
        """Open the index in a folder; the vectors are memory-mapped.

        Files are compared with their digests: vectors of more than 64 MiB when they are first used, the others here.

        Args:
            folder: folder of the index.
            model: the run, exported model or embedder that computed the vectors, for queries that are raw values. None:
                queries must be vectors.

        Raises:
            MultimodalError: there is no index, it is damaged, or its vectors come from another model.
        """
        folder = Path(folder)
        opened = read_index_folder(folder)
        description = opened.description
        index = cls(opened.vectors, opened.items, description["fingerprint"], description.get("data"))
        index._file = folder / VECTORS, description.get(FILES, {}).get(VECTORS)
        if opened.vectors.nbytes <= CHECKED_AT_OPEN:
            _ = index.vectors
        if model is not None:
            from multimodal.core.embedder import Embedder

            index.embedder = model if isinstance(model, Embedder) else Embedder.from_pretrained(model)
            index.check_model(index.embedder.fingerprint)
        return index

    def check_model(self, fingerprint: str) -> None:
        """Raise a ``MultimodalError`` unless the vectors come from the model with this fingerprint."""
        if fingerprint != self.fingerprint:
            raise MultimodalError(
                f"The index was made with another model ({self.fingerprint[:12]}) than the given one"
                f" ({fingerprint[:12]}); embed and index again with this model."
            )
