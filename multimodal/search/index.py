"""An index: searchable embeddings with their keys, groups and metadata.

A folder: ``index.json`` (dim, count, the fingerprint of the model), ``vectors.npy`` (``(n, dim)`` float32, memory-mapped)
and ``items.parquet`` (``key``, ``group``, ``modality`` and ``metadata`` of each vector). No torch is needed to search.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from multimodal.core.errors import MultimodalError, UsageError, suggest
from multimodal.core.files import atomic_folder
from multimodal.search.embedding_folder import read_manifest, read_parts
from multimodal.search.engines.engine import Engine
from multimodal.search.engines.exact import ExactEngine

DESCRIPTION = "index.json"
VECTORS = "vectors.npy"
ITEMS = "items.parquet"
FORMAT = 1
CANDIDATES = 4  # vectors that are looked at for each hit, as several may be of one group


@dataclass(frozen=True)
class Hit:
    """One thing found. ``score`` is the cosine, in [-1, 1]."""

    key: str
    modality: str
    score: float
    metadata: dict[str, Any]


class Index:
    """Exact search by cosine over all vectors.

    A group (a thing with several vectors: its pictures, its name) is found once, by its best vector.

    Args:
        vectors: ``(n, dim)`` float32 of unit length.
        items: n rows with the columns ``key``, ``group``, ``modality`` and ``metadata`` (JSON).
        fingerprint: of the model that made the vectors.
    """

    def __init__(self, vectors: np.ndarray, items: pa.Table, fingerprint: str) -> None:
        self.vectors, self.items, self.fingerprint = vectors, items, fingerprint
        self.engine: Engine = ExactEngine(vectors)
        modality = items["modality"].combine_chunks().dictionary_encode()
        self._modality, self.modalities = modality.indices.to_numpy(), modality.dictionary.to_pylist()
        self._group = items["group"].combine_chunks().dictionary_encode().indices.to_numpy()

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dim(self) -> int:
        return self.vectors.shape[1]

    def search(self, vectors: np.ndarray, k: int = 10, target: str | None = None) -> list[list[Hit]]:
        """The k nearest groups of each query, the nearest first; fewer if there are no more.

        Args:
            vectors: ``(q, dim)`` queries of unit length.
            k: how many hits a query gets, at least 1.
            target: search the vectors of this modality alone. None: of all.

        Raises:
            UsageError: k, the width of the vectors or the modality do not fit.
        """
        vectors = np.asarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise UsageError(f"The queries have shape {vectors.shape}, the index takes (q, {self.dim}).")
        if k < 1:
            raise UsageError(f"k must be at least 1, got {k}.")
        if target is not None and target not in self.modalities:
            raise UsageError(f"The index holds no {target!r} vectors.{suggest(target, self.modalities)}")
        among = None
        if target is not None:
            among = np.flatnonzero(self._modality == self.modalities.index(target))
        searched = len(self) if among is None else len(among)
        wanted = CANDIDATES * k
        hits = []
        for query, found in zip(vectors, self.engine.nearest(vectors, wanted, among), strict=True):
            count = wanted
            while (best := self._best_of_groups(found[0]))[k - 1 : k].size == 0 and count < searched:
                count *= CANDIDATES  # too few groups among them
                found = self.engine.nearest(query[None], count, among)[0]
            rows, scores = found
            hits.append([self._hit(int(rows[i]), float(scores[i])) for i in best[:k]])
        return hits

    def _best_of_groups(self, rows: np.ndarray) -> np.ndarray:
        """The positions of the first row of each group, ascending."""
        return np.sort(np.unique(self._group[rows], return_index=True)[1])

    def _hit(self, row: int, score: float) -> Hit:
        item = self.items.slice(row, 1).to_pylist()[0]
        return Hit(item["key"], item["modality"], score, json.loads(item["metadata"]))

    @classmethod
    def build(cls, embeddings: str | Path, out: str | Path) -> Index:
        """Make the index of a folder of embeddings at ``out``, in the place of what is there.

        Raises:
            MultimodalError: the embeddings are missing or incomplete.
        """
        embeddings, out = Path(embeddings), Path(out)
        manifest = read_manifest(embeddings)
        vectors, items = [np.zeros((0, manifest.dim), np.float32)], [_ITEMS.empty_table()]
        for part in read_parts(embeddings):
            for modality in manifest.modalities:
                present = part.filter(part[modality].is_valid())
                flat = present[modality].combine_chunks().flatten().to_numpy(zero_copy_only=False)
                vectors.append(flat.astype(np.float32).reshape(-1, manifest.dim))
                named = present.select(["key", "group", "metadata"])
                items.append(named.append_column("modality", pa.array([modality] * len(named), pa.string())))
        all_vectors = np.concatenate(vectors)
        description = {"format": FORMAT, "fingerprint": manifest.fingerprint, "count": len(all_vectors)}
        with atomic_folder(out, marker=DESCRIPTION) as new:
            np.save(new / VECTORS, all_vectors)
            pq.write_table(pa.concat_tables(items), new / ITEMS)
            (new / DESCRIPTION).write_text(json.dumps(description, indent=1), encoding="utf-8")
        return cls.open(out)

    @classmethod
    def open(cls, folder: str | Path) -> Index:
        """Open the index in a folder; the vectors are memory-mapped.

        Raises:
            MultimodalError: there is none, or it is damaged.
        """
        folder = Path(folder)
        if not (folder / DESCRIPTION).is_file():
            raise MultimodalError(
                f"{folder} is no index: {DESCRIPTION} is not there. Build one with `multimodal index`."
            )
        try:
            description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
            vectors = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
            items = pq.read_table(folder / ITEMS)
            if description["format"] != FORMAT:
                raise MultimodalError(
                    f"{folder} has index format {description['format']}; this version reads {FORMAT}."
                )
            if not len(vectors) == len(items) == description["count"]:
                raise ValueError("its files differ in length")
            if vectors.ndim != 2 or vectors.dtype != np.float32 or items.schema.names != _ITEMS.names:
                raise ValueError("its files are not those that `multimodal index` writes")
            return cls(vectors, items, description["fingerprint"])
        except (OSError, EOFError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise MultimodalError(f"The index {folder} is damaged ({error}); build it anew.") from error

    def check_model(self, fingerprint: str) -> None:
        """Raise a ``MultimodalError`` unless the vectors come from the model with this fingerprint."""
        if fingerprint != self.fingerprint:
            raise MultimodalError(
                f"The index was made by another model ({self.fingerprint[:12]}) than the one at hand"
                f" ({fingerprint[:12]}); embed and index again with this one."
            )


_ITEMS = pa.schema([(name, pa.string()) for name in ("key", "group", "metadata", "modality")])
