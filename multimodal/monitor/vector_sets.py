"""Sets of vectors to compare: of a folder of embeddings, an index, a log of queries, or a table and a model.

1. A row belongs to a unit: its group, or if it has none, itself. Rows of one unit (the pictures of one product, a character in
   several fonts, the queries of one user) depend on one another, so at most one row of each unit is used.
2. Units are chosen by a hash of their names. Two sets that are read with one seed so choose the same of their common units.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.model_folder import read_description
from multimodal.monitor.query_log import LOG_MARKER, newest_fingerprint, read_queries
from multimodal.search.embedding_folder import MANIFEST, read_manifest, read_parts
from multimodal.search.index import Index
from multimodal.search.index_folder import DESCRIPTION
from multimodal.search.stored_vectors import vectors_of
from multimodal.search.unit_vectors import describe_vector, not_unit

if TYPE_CHECKING:
    from multimodal.data.samples import Samples

pc: Any = pyarrow.compute  # its functions are made when it is imported
ALONE = "#"  # begins the group of a row that has none, see Samples.group_of; such a unit is in one set alone
KEYED = "@"  # begins the unit of a row that has a key and no group


@dataclass(frozen=True)
class Vectors:
    """Vectors of one modality, each of another unit.

    Attributes:
        vectors: ``(n, dim)`` float32 of unit length.
        keys: ``(n,)`` keys of their rows.
        units: ``(n,)`` units of their rows; those that begin with "#" are in this set alone.
        metadata: ``(n,)`` columns of their rows, as JSON.

    Examples:
        >>> made = Vectors(np.eye(2, dtype=np.float32), np.array(["a", "b"]), np.array(["@a", "@b"]), np.array(["{}"] * 2))
        >>> made.take(np.array([1])).keys
        array(['b'], dtype='<U1')
    """

    vectors: np.ndarray
    keys: np.ndarray
    units: np.ndarray
    metadata: np.ndarray

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, places: np.ndarray) -> Vectors:
        """Return the vectors in these places."""
        return Vectors(self.vectors[places], self.keys[places], self.units[places], self.metadata[places])

    def column(self, name: str) -> list[str | None]:
        """Return the values of a column of the metadata as texts; None where a row has none."""
        cells = [json.loads(text or "{}").get(name) for text in self.metadata]
        return [None if cell is None else str(cell) for cell in cells]


@dataclass(frozen=True)
class VectorSet:
    """The vectors of a set, by modality.

    Attributes:
        name: what was read.
        fingerprint: of the model that computed the vectors.
        modalities: modality -> its vectors.
        data: settings with which the embedded table was opened (``Samples.settings``); None: unknown.
        samples: the table, if it is open.
        rows: modality -> number of its vectors before a choice was made.
    """

    name: str
    fingerprint: str
    modalities: dict[str, Vectors]
    data: Mapping[str, Any] | None = None
    samples: Samples | None = None
    rows: dict[str, int] = field(default_factory=dict)


class _Chosen:
    """The units with the smallest hashes of a modality, one row of each."""

    def __init__(self, max_rows: int, seed: int) -> None:
        self._max_rows, self._seed = max_rows, seed
        self._parts: list[tuple[Vectors, np.ndarray, np.ndarray]] = []
        self.seen = 0

    def add(self, found: Vectors) -> None:
        self.seen += len(found)
        hashes = np.array([_hash(self._seed, unit) for unit in found.units], np.uint64)
        ties = np.array([_hash(self._seed, key) for key in found.keys], np.uint64)
        self._parts.append((found, hashes, ties))
        if sum(len(part[0]) for part in self._parts) > 4 * self._max_rows:
            self._parts = [self._reduce()]

    def _reduce(self) -> tuple[Vectors, np.ndarray, np.ndarray]:
        names = ("vectors", "keys", "units", "metadata")
        joined = Vectors(*(np.concatenate([getattr(part[0], name) for part in self._parts]) for name in names))
        hashes = np.concatenate([hashes for _, hashes, _ in self._parts])
        ties = np.concatenate([ties for _, _, ties in self._parts])
        order = np.lexsort((ties, hashes))
        first = np.concatenate([[True], np.diff(hashes[order]) != 0]) if len(order) else np.zeros(0, bool)
        kept = order[first][: self._max_rows]
        return joined.take(kept), hashes[kept], ties[kept]

    def result(self) -> Vectors:
        return self._reduce()[0]


def _hash(seed: int, text: str) -> int:
    return int.from_bytes(blake2b(f"{seed} {text}".encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def read_vectors(
    source: str | Path, run: str | Path | None = None, *, max_rows: int = 1000, seed: int = 0
) -> VectorSet:
    """Read the vectors of a set, at most ``max_rows`` of each modality.

    Args:
        source: folder of embeddings (see ``embed_table``), of an index, or of a log of queries; with ``run``, also a table's
            name.
        run: the run or exported model that embeds a table; vectors of another model are refused. None: unknown.
        max_rows: number of units.
        seed: of the choice of units.

    Raises:
        UsageError: the source is a table, and ``run`` is None.
        MultimodalError: the source cannot be read, its vectors are not of unit length or of another model than the run's.
    """
    folder = Path(source)
    if (folder / MANIFEST).is_file():
        found = _of_embeddings(folder, max_rows, seed)
    elif (folder / DESCRIPTION).is_file():
        found = _of_index(folder, max_rows, seed)
    elif (folder / LOG_MARKER).is_file():
        expected = None if run is None else read_description(Path(run))["fingerprint"]
        found = _of_queries(folder, expected, max_rows, seed)
    elif run is not None:
        return _of_table(str(source), Path(run), max_rows, seed)
    else:
        raise UsageError(
            f"{source} holds neither embeddings nor an index nor a log of queries. For a table, name the model that embeds"
            " it: --model RUN."
        )
    if run is not None and (expected := read_description(Path(run))["fingerprint"]) != found.fingerprint:
        raise MultimodalError(
            f"The vectors in {source} come from another model ({found.fingerprint[:12]}) than {run} ({expected[:12]})."
        )
    return found


def chosen_vectors(
    name: str, parts: Iterable[tuple[str, Vectors]], max_rows: int, seed: int
) -> tuple[dict[str, Vectors], dict[str, int]]:
    """Choose at most ``max_rows`` units of each modality, and one row of each.

    Args:
        name: what is read, for errors.
        parts: modality and vectors, a part at a time.
        max_rows: number of units.
        seed: of the choice.

    Returns:
        Modality -> the chosen vectors, and -> the number of all.

    Raises:
        MultimodalError: a vector is not finite, or not of unit length.
    """
    chosen: dict[str, _Chosen] = {}
    for modality, found in parts:
        if len(wrong := not_unit(found.vectors)):
            key, fault = str(found.keys[wrong[0]]), describe_vector(found.vectors[wrong[0]])
            raise MultimodalError(f"The {modality} vector of {key!r} in {name} is not of unit length ({fault}).")
        chosen.setdefault(modality, _Chosen(max_rows, seed)).add(found)
    return {m: of.result() for m, of in chosen.items()}, {m: of.seen for m, of in chosen.items()}


def units_of(keys: Sequence[str], groups: Sequence[str], keyed: bool) -> np.ndarray:
    """Return the units of rows: their groups, or their keys if these mean something in another set.

    Args:
        keys: the keys of the rows.
        groups: the groups of the rows.
        keyed: whether the table has a column of keys; else they are the numbers of its rows.

    Examples:
        >>> units_of(["a", "b"], ["=cups", "#1"], keyed=True), units_of(["0"], ["#0"], keyed=False)
        (array(['=cups', '@b'], dtype='<U5'), array(['#0'], dtype='<U2'))
    """
    alone = KEYED if keyed else ALONE
    return np.array([f"{alone}{k}" if g.startswith(ALONE) else g for k, g in zip(keys, groups, strict=True)])


def _of_embeddings(folder: Path, max_rows: int, seed: int) -> VectorSet:
    manifest = read_manifest(folder)
    parts = _parts(read_parts(folder), manifest.modalities, manifest.dim, manifest.data.get("key") is not None)
    chosen = chosen_vectors(str(folder), parts, max_rows, seed)
    return VectorSet(str(folder), manifest.fingerprint, chosen[0], manifest.data, rows=chosen[1])


def _parts(tables: Iterable[pa.Table], modalities: list[str], dim: int, keyed: bool) -> Iterator[tuple[str, Vectors]]:
    for table in tables:
        for modality in modalities:
            present = table.filter(pc.is_valid(table[modality]))
            described = {name: present[name].to_pylist() for name in ("key", "group", "metadata")}
            units = units_of(described["key"], described["group"], keyed)
            keys, metadata = np.array(described["key"], str), np.array(described["metadata"], object)
            yield modality, Vectors(vectors_of(present, modality, dim), keys, units, metadata)


def _of_index(folder: Path, max_rows: int, seed: int) -> VectorSet:
    with Index.open(folder) as index:
        keyed = index.data is not None and index.data.get("key") is not None

        def parts() -> Iterator[tuple[str, Vectors]]:
            for modality in index.modalities:
                vectors, items = index.engine.select(modality)
                described = {name: items[name].to_pylist() for name in ("key", "group", "metadata")}
                units = units_of(described["key"], described["group"], keyed)
                yield (
                    modality,
                    Vectors(vectors, np.array(described["key"], str), units, np.array(described["metadata"], object)),
                )

        chosen = chosen_vectors(str(folder), parts(), max_rows, seed)
        return VectorSet(str(folder), index.fingerprint, chosen[0], index.data, rows=chosen[1])


def _of_queries(folder: Path, fingerprint: str | None, max_rows: int, seed: int) -> VectorSet:
    fingerprint = fingerprint or newest_fingerprint(folder)

    def parts() -> Iterator[tuple[str, Vectors]]:
        for part in read_queries(folder, fingerprint):
            for modality in part["modality"].unique().drop_null().to_pylist():
                rows = part.filter(pc.equal(part["modality"], modality))
                vectors = vectors_of(rows, "vector", rows.schema.field("vector").type.list_size)
                keys, users = rows["query_id"].to_pylist(), rows["user"].to_pylist()
                units = [f"={user}" if user else f"{ALONE}{key}" for key, user in zip(keys, users, strict=True)]
                empty = np.array(["{}"] * len(keys), object)
                yield modality, Vectors(vectors, np.array(keys, str), np.array(units, str), empty)

    chosen = chosen_vectors(str(folder), parts(), max_rows, seed)
    return VectorSet(str(folder), fingerprint, chosen[0], rows=chosen[1])


def _of_table(table: str, run: Path, max_rows: int, seed: int) -> VectorSet:
    from multimodal.core.embedder import Embedder
    from multimodal.data.run_data import load_run_data
    from multimodal.search.embed import embed_in_memory

    data = load_run_data(run, table)
    samples, keyed = data.samples, data.samples.schema.key is not None
    rows = data.samples.rows("all")
    keys = [samples.key_of(int(row)) for row in rows]
    units = units_of(keys, [samples.group_of(int(row)) for row in rows], keyed)
    numbered = Vectors(rows[:, None], np.array(keys, str), units, np.full(len(rows), "{}", object))
    choice = _Chosen(max_rows, seed)
    choice.add(numbered)
    chosen_rows = np.sort(choice.result().vectors[:, 0])
    embedder = Embedder.from_pretrained(run)
    _, part = embed_in_memory(embedder, samples, chosen_rows, data.max_rejects)
    modalities = [modality for modality in embedder.modalities if modality in part.column_names]
    chosen, counts = chosen_vectors(table, _parts([part], modalities, embedder.dim, keyed), max_rows, seed)
    return VectorSet(table, embedder.fingerprint, chosen, samples.settings, samples, counts)
