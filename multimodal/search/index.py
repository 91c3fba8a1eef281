"""Index: searchable embeddings with their keys, groups and metadata, that can be changed while they are searched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pyarrow as pa

from multimodal.core.arguments import check_types
from multimodal.core.calibration import check_precision, need_calibration
from multimodal.core.conditions import Range, Where, check_where, nothing_to_compare
from multimodal.core.errors import MultimodalError, UsageError, check_names, suggest
from multimodal.core.files import check_folder
from multimodal.core.html_table import html_table
from multimodal.core.progress import progress
from multimodal.core.system_errors import writing
from multimodal.search.combine import combine
from multimodal.search.embedding_folder import read_manifest, read_parts
from multimodal.search.engines.engine import ITEM_SCHEMA, Engine, IndexReplaced
from multimodal.search.engines.exact import ExactEngine
from multimodal.search.engines.layout import SAMPLE, Layout
from multimodal.search.engines.open import EMBEDDED, EXACT, check_engine
from multimodal.search.hits import HitLists, Hits
from multimodal.search.index_folder import (
    MODEL,
    IndexFolder,
    open_index_folder,
    read_index_description,
    write_engine_index,
    write_index_folder,
)
from multimodal.search.index_rows import IndexRows
from multimodal.search.nearest import Learned, Search, calibrated_hits
from multimodal.search.pieces import Piece, parts_of, pieces_of, sample_of
from multimodal.search.queries import VALUE_EXAMPLE, check_keys, check_vectors, words_of
from multimodal.search.unique_keys import with_unique_keys

if TYPE_CHECKING:
    from multimodal.core.embedder import Embedder
    from multimodal.core.rejects import Rejects
    from multimodal.data.pictures import Pictures
    from multimodal.data.samples import Samples

QUERIES_ARE_MAPPED = "The index answers mapped queries of another model while it is upgraded: add rows after that."
SEARCH = ("k", "target", "min_precision", "where", "like", "unlike", "weights", "hybrid", "exact")


class Index:
    """Searchable vectors of a table's rows, with their keys and metadata.

    Hits are ranked by cosine. Each group (rows that match one another, such as pictures of one object and its name) is found
    once, by its best vector.

    Args:
        engine: holds and searches the vectors.
        fingerprint: fingerprint of the model that computed the vectors.
        data: settings with which the embedded table was opened (``Samples.settings``); None: unknown.
        embedder: the model, for queries that are raw values.

    Attributes:
        folder: the folder that it was opened from. None: it is in memory.
        mapped: whether the embedder is another model, whose vectors are mapped for queries; then no rows can be added.
        learned: changes the ranking by what people judged, see ``FeedbackRanking``. None: nothing does.

    Examples:
        >>> rows = {"key": ["a", "b"], "group": ["a", "b"], "metadata": ['{"set": "x"}'] * 2, "modality": ["text"] * 2}
        >>> index = Index(ExactEngine(np.eye(2, dtype=np.float32), pa.table(rows)), "f" * 64)
        >>> index.search(np.array([[0.6, 0.8]]), k=1)[0][0].key
        'b'
        >>> index.search(like=["a"], where={"set": "x"})
        0.000 text b set=x
    """

    def __init__(
        self,
        engine: Engine,
        fingerprint: str,
        data: Mapping[str, Any] | None = None,
        embedder: Embedder | None = None,
    ) -> None:
        self.engine, self.fingerprint, self.data, self.embedder = engine, fingerprint, data, embedder
        self.folder: Path | None = None
        self.mapped = False
        self._files = ExitStack()
        self._files.callback(engine.close)
        self._pictures: Pictures | None = None
        self.learned: Learned | None = None

    def __repr__(self) -> str:
        counts = ", ".join(f"{modality} {count}" for modality, count in self._counts())
        return f"Index of {len(self):,} vectors ({counts or 'empty'}), {self.dim} wide"

    def _repr_html_(self) -> str:
        """The number of vectors of each modality, for a notebook."""
        title = f"Index of {len(self):,} vectors, {self.dim} wide"
        return html_table(("modality", "vectors"), self._counts(), title)

    def _counts(self) -> list[tuple[str, str]]:
        return [(modality, f"{self.engine.count(modality):,}") for modality in self.modalities]

    def __len__(self) -> int:
        return sum(map(self.engine.count, self.modalities))

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the files, so that another process can open an index that one process at a time may have open.

        What ``showing`` returned is closed with it. Closing again does nothing.
        """
        self._files.close()

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.engine.dim

    @property
    def modalities(self) -> list[str]:
        """The modalities of the vectors."""
        return self.engine.modalities

    @property
    def columns(self) -> list[str]:
        """The columns of the metadata, for ``where`` and ``facets``."""
        return self.engine.columns

    @property
    def vectors(self) -> np.ndarray:
        """All vectors, ``(n, dim)`` float32 of unit length.

        Raises:
            MultimodalError: the index is damaged.
        """
        return self.engine.select()[0]

    @property
    def items(self) -> pa.Table:
        """The ``key``, ``group``, ``metadata`` (JSON) and ``modality`` of each of ``vectors``."""
        return self.engine.select()[1]

    @overload
    def search(
        self,
        vectors: np.ndarray,
        k: int = 10,
        target: str | None = None,
        min_precision: float | None = None,
        modality: str | None = None,
        *,
        where: Mapping[str, Any] | None = None,
        exact: bool = False,
    ) -> HitLists: ...

    @overload
    def search(
        self,
        *,
        k: int = 10,
        target: str | None = None,
        min_precision: float | None = None,
        where: Mapping[str, Any] | None = None,
        like: Sequence[str] = (),
        unlike: Sequence[str] = (),
        weights: Mapping[str, float] | None = None,
        hybrid: bool | str = False,
        exact: bool = False,
        **query: Any,
    ) -> Hits: ...

    def search(
        self,
        vectors: np.ndarray | None = None,
        k: int = 10,
        target: str | None = None,
        min_precision: float | None = None,
        modality: str | None = None,
        *,
        where: Mapping[str, Any] | None = None,
        like: Sequence[str] = (),
        unlike: Sequence[str] = (),
        weights: Mapping[str, float] | None = None,
        hybrid: bool | str = False,
        exact: bool = False,
        **query: Any,
    ) -> HitLists | Hits:
        """Find the k nearest groups of each query, the nearest first; fewer if there are no more.

        Args:
            vectors: ``(q, dim)`` queries of any length but 0; only their directions count, as scores are cosines.
            k: number of hits for each query, at least 1.
            target: search only the vectors of this modality. None: all vectors.
            min_precision: return only hits with scores so high that this fraction of them is right, in (0, 1); often none.
                Hits of the query's own modality are left out, as their scores are not calibrated. The model must be
                calibrated: ``multimodal calibrate RUN``. None: all hits.
            modality: modality of the vectors, by which their scores are calibrated. None: unknown.
            where: search only rows that meet these conditions: column -> a value, or several of which a row must have one,
                compared as texts; or a range of numbers or dates: ``{"price": {"gte": 5, "lt": 20}}``, see
                ``multimodal.core.conditions``.
            like: keys of rows that the hits should be like; their groups are not found.
            unlike: keys of rows that the hits should not be like; their groups are not found either.
            weights: modality -> weight of its value in a query of several; negative: away from it. Others have 1.
            hybrid: also look for words in the rows' keys and texts: those of the query's text, or other ones that are given.
            exact: compare every vector, which is slower, where the engine would miss one now and then.
            **query: instead of vectors, a value of a modality, or one of each of several, which are combined:
                ``text="a red cup"``, ``image="cup.png"``. The index must know its model, see ``open``.

        Returns:
            The hits of each query; for values, their hits.

        Raises:
            UsageError: k is below 1, the vectors have another width or are not finite numbers, a modality, a column or a key
                is unknown, or the index does not know its model.
            MultimodalError: the index is damaged.
        """
        check_types("search", Index.search, {"k": k, "target": target, "min_precision": min_precision, "exact": exact})
        if vectors is not None or len(query) > 1:
            modalities = [*self.modalities, *(() if self.embedder is None else self.embedder.modalities)]
            check_names("search", query, {*modalities, "vectors", "modality", *SEARCH})
        parts = query or like or unlike or weights or hybrid
        if (vectors is None) == (not parts) or isinstance(vectors, str):
            raise UsageError(f"search takes either vectors or values of modalities. {VALUE_EXAMPLE}")
        if vectors is not None:
            vectors = check_vectors(vectors, self.dim)
            return self._search(vectors, k, target, min_precision, modality, self._asked(where, k, exact))
        return self.search_encoded(
            self._encode(query),
            k,
            target,
            min_precision,
            where=where,
            like=like,
            unlike=unlike,
            weights=weights,
            words=words_of(hybrid, query),
            exact=exact,
        )

    def search_encoded(
        self,
        encoded: Mapping[str, np.ndarray],
        k: int = 10,
        target: str | None = None,
        min_precision: float | None = None,
        *,
        where: Mapping[str, Any] | None = None,
        like: Sequence[str] = (),
        unlike: Sequence[str] = (),
        weights: Mapping[str, float] | None = None,
        words: str | None = None,
        exact: bool = False,
    ) -> Hits:
        """Find what ``search`` finds for values that are encoded already, as a server does for many at once.

        Args:
            encoded: modality -> ``(dim,)`` vector of the query's value.
            k: number of hits, at least 1.
            target: search only the vectors of this modality. None: all vectors.
            min_precision: return only hits with scores so high that this fraction of them is right. The query must have one
                value alone, as scores are calibrated for one modality. None: all hits.
            where: search only rows that meet these conditions.
            like: keys of rows that the hits should be like.
            unlike: keys of rows that the hits should not be like.
            weights: modality -> weight of its value.
            words: also look for these words. None: vectors alone.
            exact: compare every vector.

        Raises:
            UsageError: see ``search``.
            MultimodalError: the index is damaged.
        """
        liked, groups = self._vectors_of_keys(like)
        disliked, others = self._vectors_of_keys(unlike)
        asked = self._asked(where, k, exact)._replace(words=words, without={*groups, *others})
        checked = {m: check_vectors(np.asarray(vector)[None], self.dim)[0] for m, vector in encoded.items()}
        vector = combine(checked, weights, liked, disliked)
        if exact and words is not None:
            raise UsageError("A hybrid search is never exact: leave out exact, or hybrid.")
        positive = all((weights or {}).get(m, 1.0) > 0 for m in encoded)
        alone = len(encoded) == 1 and positive and not like and not unlike and words is None
        if min_precision is not None and not alone:
            raise UsageError("min_precision is for one value alone: the scores of combined queries are not calibrated.")
        modality = next(iter(encoded)) if alone else None
        return self._search(vector[None], k, target, min_precision, modality, asked)[0]

    def _encode(self, query: Mapping[str, Any]) -> dict[str, np.ndarray]:
        if not query:  # keys alone need no model
            return {}
        embedder = self.need_model()
        return {
            name: embedder.encode(batch_size=256, precision="float32", **{name: [value]})[0]
            for name, value in query.items()
        }

    def need_model(self) -> Embedder:
        """Return the model, for values of its modalities.

        Raises:
            UsageError: the index does not know it.
        """
        if self.embedder is None:
            raise UsageError("This index does not know its model: open it by Index.open(folder, model=RUN).")
        return self.embedder

    def _vectors_of_keys(self, keys: Sequence[str]) -> tuple[list[np.ndarray], set[str]]:
        """Return the mean vector of each indexed row, and the rows' groups."""
        keys = check_keys(keys)
        if not keys:
            return [], set()
        vectors, items = self.engine.select(keys=keys)
        of_vectors = np.array(items["key"].to_pylist())
        missing = [key for key in keys if key not in set(of_vectors.tolist())]
        if missing:
            raise UsageError(f"The index has no row with the key {missing[0]!r}.")
        return [vectors[of_vectors == key].mean(axis=0) for key in keys], set(items["group"].to_pylist())

    def _asked(self, where: Mapping[str, Any] | None, k: int, exact: bool) -> Search:
        if k < 1:
            raise UsageError(f"k must be at least 1, got {k}.")
        picture_of = None if self._pictures is None else self._pictures.of
        return Search(k, self._conditions(where), exact=exact, picture_of=picture_of, learned=self.learned)

    def _conditions(self, where: Mapping[str, Any] | None) -> Where | None:
        conditions = check_where(where)
        for column, wanted in (conditions or {}).items():
            if column not in self.columns:
                raise UsageError(f"No row of the index has {column!r}.{suggest(column, sorted(self.columns))}")
            if isinstance(wanted, Range) and wanted.kind not in (kinds := self.engine.kinds(column)):
                raise nothing_to_compare(column, wanted.kind, kinds)
        return conditions

    def _check_stored(self, modality: str | None) -> None:
        if modality is not None and modality not in self.modalities:
            raise UsageError(f"The index holds no {modality!r} vectors.{suggest(modality, self.modalities)}")

    def _search(
        self,
        vectors: np.ndarray,
        k: int,
        target: str | None,
        min_precision: float | None,
        modality: str | None,
        asked: Search,
    ) -> HitLists:
        """Search, and add the probabilities of hits where the scores are calibrated for their modality."""
        self._check_stored(target)
        calibration = None if self.embedder is None else self.embedder.calibration
        if min_precision is not None:
            check_precision(min_precision)
            if modality is None:
                raise UsageError("min_precision needs the modality of the vectors: search(vectors, modality='text').")
            calibration = need_calibration(calibration, modality)
        if calibration is None or modality is None or (target is None and min_precision is None):
            return asked.hits(self.engine, vectors, target)
        return calibrated_hits(asked, self.engine, vectors, calibration, modality, target, min_precision)

    def facets(self, column: str, where: Mapping[str, Any] | None = None, limit: int = 20) -> dict[str, int]:
        """Return the most frequent values of a column, with their numbers of rows.

        Args:
            column: a column of the metadata.
            where: count only rows that meet these conditions.
            limit: number of values.

        Raises:
            UsageError: no row has such a column.
        """
        self._conditions({column: ""})
        return self.engine.facets(column, self._conditions(where), limit)

    def upsert(self, table: Any, *, split: str = "all", **settings: Any) -> Rejects:
        """Embed rows and add them, in the place of rows with the same keys; in a folder, they are durable when this returns.

        Args:
            table: a table's name, or in Python a ``DataModule``, ``Samples`` or rows in memory.
            split: the split to add, or "all".
            **settings: keys of ``data:``, as in ``from_table``. None given: those of the indexed table.

        Returns:
            The rows that cannot be read; they are left out.

        Raises:
            UsageError: the index does not know its model, the settings do not fit the table, or two rows have the same key.
            MultimodalError: the table or too many of its rows cannot be read, the index has no vectors of its modalities,
                or the folder cannot be written.
        """
        from multimodal.data.run_data import SETTINGS, load_run_data

        check_names("Index.upsert", settings, SETTINGS)
        self.need_model()
        known = {name: value for name, value in (self.data or {}).items() if name in ("columns", "key", "group")}
        data = load_run_data(None, table, settings or ({} if hasattr(table, "samples") else known))
        if data.samples.schema.key is None:
            raise UsageError(
                "The rows to add need keys, which say what they take the place of: upsert(table, key='sku')."
            )
        return self.upsert_rows(data.samples, data.samples.rows(split), data.max_rejects)

    def upsert_rows(self, samples: Samples, rows: np.ndarray, max_rejects: float = 0.01) -> Rejects:
        """Embed some rows of a table that is open and add them, as ``upsert`` does.

        Args:
            samples: the table, with keys.
            rows: ``(r,)`` row numbers.
            max_rejects: fraction of the rows, in [0, 1], that may be unreadable.

        Returns:
            The rows that cannot be read; they are left out.

        Raises:
            UsageError: the index does not know its model, or two of the rows have the same key.
            MultimodalError: see ``upsert``.
        """
        from multimodal.data.keys import check_unique_keys
        from multimodal.search.embed import embed_in_memory

        if self.mapped:
            raise UsageError(QUERIES_ARE_MAPPED)
        check_unique_keys(samples, rows)
        rejects, part = embed_in_memory(self.need_model(), samples, rows, max_rejects)
        keys, groups = part["key"].to_pylist(), part["group"].to_pylist()
        alone = [f"#={key}" if group.startswith("#") else group for key, group in zip(keys, groups, strict=True)]
        part = part.set_column(1, "group", pa.array(alone, pa.string()))  # not by the number of the row
        with self._changing(lambda rows: rows.record_upsert(samples, keys)):
            self.engine.upsert([part])
        return rejects

    @contextmanager
    def _changing(self, record: Callable[[IndexRows], None]) -> Iterator[None]:
        """Change the stored rows in the block, after the change is recorded; not while another index takes its place."""
        rows = IndexRows.of(self.folder)
        if self.folder is None or rows is None:
            yield
            return
        if read_index_description(self.folder)["fingerprint"] != self.fingerprint:
            raise IndexReplaced(self.folder)
        with writing(self.folder):
            record(rows)
            with rows.locked():
                yield

    def remove(self, keys: Sequence[str]) -> int:
        """Remove rows, and return how many were there; in a folder, they are gone for good when this returns.

        Args:
            keys: the keys of the rows.

        Raises:
            UsageError: keys is not a list of texts.
            MultimodalError: the folder cannot be written.
        """
        keys = check_keys(keys)
        with self._changing(lambda rows: rows.record_removal(keys)):
            return self.engine.remove(keys)

    def with_pictures(self, table: Any = None) -> Index:
        """Return the same index, whose hits also show the pictures of their rows in a notebook.

        An index that ``from_table`` made has them already.

        Args:
            table: the ``Samples`` or the ``DataModule`` that were embedded. None: the table is opened again with the settings
                of the embedding.

        Raises:
            UsageError: the index does not know its table, or the table has no modality "image".
        """
        from multimodal.data.pictures import Pictures

        other = Index(self.engine, self.fingerprint, self.data, self.embedder)
        other.folder, other._files = self.folder, self._files
        other._pictures = Pictures.of_index(self.data, getattr(table, "samples", table))
        other.learned = self.learned
        return other

    def filter(self, modality: str | None = None, **metadata: Any) -> Index:
        """Return the index of the rows that have the given values, in memory; it is searched exactly.

        Args:
            modality: keep only the vectors of this modality.
            **metadata: column -> its value, a list of values of which a row must have one, or a range.

        Raises:
            UsageError: the index has no such modality, or no row has such a column.
        """
        self._check_stored(modality)
        chosen = ExactEngine(*self.engine.select(modality, self._conditions(metadata)))
        other = Index(chosen, self.fingerprint, self.data, self.embedder)
        other._pictures, other.learned = self._pictures, self.learned
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
            UsageError: ``columns`` are missing for a table that needs them, settings are given for a ``DataModule`` or
                ``Samples``, or two rows have the same key.
        """
        from multimodal.data.keys import check_unique_keys
        from multimodal.data.pictures import MODALITY, Pictures
        from multimodal.data.run_data import SETTINGS, load_run_data
        from multimodal.search.embed import embed_in_memory

        check_names("Index.from_table", settings, SETTINGS)
        data = load_run_data(None, table, settings)
        rows = data.samples.rows(split)
        check_unique_keys(data.samples, rows)
        _, part = embed_in_memory(embedder, data.samples, rows, data.max_rejects)
        engine = ExactEngine(np.empty((0, embedder.dim), np.float32), ITEM_SCHEMA.empty_table())
        engine.upsert([part])
        index = cls(engine, embedder.fingerprint, data.samples.settings, embedder)
        if MODALITY in data.samples.modalities:
            index._pictures = Pictures(data.samples)
        return index

    @classmethod
    def build(
        cls,
        embeddings: str | Path,
        out: str | Path,
        *,
        engine: str = EMBEDDED,
        quantization: str | None = None,
        dim: int | None = None,
        reduction: str = "prefix",
        model: str | Path | None = None,
    ) -> Index:
        """Build the index of a folder of embeddings at ``out``, replacing an existing index.

        Args:
            embeddings: folder of embeddings, see ``embed_table``.
            out: folder of the index.
            engine: "qdrant-edge" (approximate search, which is fast for millions of rows; one process at a time has the
                index open), "exact" (compares every vector; any number of processes may read it), or the collection of a
                server, such as "qdrant+http://localhost:6333/glyphs" or "milvus+http://localhost:19530/glyphs".
            quantization: how the vectors that are searched are compressed: "int8" or "binary"; candidates are compared
                again by the whole vectors. None: not.
            dim: search reduced vectors of this width, and compare the candidates again by the whole vectors. None: not.
            reduction: how vectors are reduced: "prefix" (their first components, for models whose prefixes are trained by
                ``matryoshka_dims``), "pca" or "svd" (fitted to the first 20,000 vectors).
            model: the folder of the run or model that computed the vectors, recorded for a server that is to load it. None:
                it is not recorded.

        Raises:
            MultimodalError: the embeddings are missing or incomplete, two rows have the same key, a vector is not finite,
                another process has the index open, or the server fails or has a collection of this name that this package
                did not make.
            UsageError: ``out`` is a file, or a setting is wrong or does not fit the engine.
        """
        check_folder(out)
        embeddings, out = Path(embeddings), Path(out)
        manifest = read_manifest(embeddings)
        description: dict[str, Any] = {name: getattr(manifest, name) for name in ("fingerprint", "data", "metadata")}
        if model is not None:
            description[MODEL] = str(Path(model).absolute())
        layout = Layout(manifest.dim, manifest.modalities, (), quantization, dim, reduction)
        if reduction != "prefix":
            layout = layout.fitted(sample_of(read_parts(embeddings), manifest.modalities, manifest.dim, SAMPLE))
        with progress("Indexing", manifest.rows) as advance:
            parts = with_unique_keys(_counted(read_parts(embeddings), advance))
            pieces = (piece for part in parts for piece in pieces_of(part, manifest.modalities, manifest.dim))
            _write(out, engine, parts, pieces, layout, description)
        return cls.open(out)

    def save(
        self,
        folder: str | Path,
        *,
        engine: str = EMBEDDED,
        quantization: str | None = None,
        dim: int | None = None,
        reduction: str = "prefix",
    ) -> None:
        """Write the index to a folder, replacing an existing index there.

        Args:
            folder: the folder.
            engine: see ``build``.
            quantization: see ``build``.
            dim: see ``build``.
            reduction: see ``build``.

        Raises:
            MultimodalError: the folder contains something else, or another process has it open.
            UsageError: a setting is wrong or does not fit the engine.
        """
        description = {"fingerprint": self.fingerprint, "data": self.data}
        stored = self.engine.select()
        layout = Layout(self.dim, self.modalities, (), quantization, dim, reduction).fitted(stored[0][:SAMPLE])
        _write(Path(folder), engine, parts_of(*stored), [stored], layout, description)

    @classmethod
    def open(cls, folder: str | Path, model: str | Path | Embedder | None = None) -> Index:
        """Open the index in a folder.

        Args:
            folder: folder of the index.
            model: the run, exported model or embedder that computed the vectors, for queries that are raw values. None:
                queries must be vectors.

        Raises:
            MultimodalError: there is no index, it is damaged, its vectors come from another model, or another process has
                it open.
        """
        return cls.of_opened(Path(folder), open_index_folder(Path(folder)), model)

    @classmethod
    def of_opened(cls, folder: Path, opened: IndexFolder, model: str | Path | Embedder | None = None) -> Index:
        """Return the index of a folder that is open, perhaps by another process.

        Args:
            folder: the folder.
            opened: its engine and description.
            model: see ``open``.

        Raises:
            MultimodalError: the vectors come from another model.
        """
        description = opened.description
        index = cls(opened.engine, description["fingerprint"], description.get("data"))
        index.folder = folder.absolute()
        if model is not None:
            from multimodal.core.embedder import Embedder

            index.embedder = model if isinstance(model, Embedder) else Embedder.from_pretrained(model)
            if not index.embedder.has_vectors_of(index.fingerprint, index.modalities):
                index.check_model(index.embedder.fingerprint)
        return index

    def check_model(self, fingerprint: str) -> None:
        """Raise a ``MultimodalError`` unless the vectors come from the model with this fingerprint."""
        if fingerprint != self.fingerprint:
            raise MultimodalError(
                f"The index was made with another model ({self.fingerprint[:12]}) than the given one"
                f" ({fingerprint[:12]}); embed and index again with this model."
            )


def _write(
    folder: Path,
    engine: str,
    parts: Iterable[pa.Table],
    pieces: Iterable[Piece],
    layout: Layout,
    description: Mapping[str, Any],
) -> None:
    """Write an index, from parts of embeddings or from the same as pieces, as its engine takes them."""
    check_engine(engine, layout)
    if engine == EXACT:
        write_index_folder(folder, pieces, layout.dim, description)
    else:
        write_engine_index(folder, engine, parts, layout, description)


def _counted(parts: Iterable[pa.Table], advance: Callable[[int], object]) -> Iterator[pa.Table]:
    for part in parts:
        yield part
        advance(len(part))
