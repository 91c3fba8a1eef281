"""The embedding of a part: rows of a table in, a table of keys, metadata and vectors out.

1. The rows are read in small groups; a processor that is faster with many values gets those of a group at once.
2. A row whose inputs have the digest of an earlier row takes over that row's vectors (``EarlierVectors``).
3. The other items wait, by modality, until those of several batches are there. They are sorted by cost and cut into batches
   of about equal work (``Embedder.encode_items``); items that all cost the same do not wait.
4. The vectors are put at the places of their rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from multimodal.core.embedder import Embedder, Precision
from multimodal.core.encoder import Processor
from multimodal.core.errors import MultimodalError
from multimodal.core.rejects import Reject
from multimodal.data.samples import Samples
from multimodal.data.tables.file_cells import resolve_file_cell
from multimodal.search.earlier_vectors import EarlierVectors
from multimodal.search.row_digest import row_digest
from multimodal.search.stored_vectors import to_column, to_stored

READ_ROWS = 256  # rows whose values are processed at once
WAITING_COST = 4096  # of items that wait to be sorted; an ordinary item costs 1
WAITING_BYTES = 1 << 28  # of their tensors

OnRead = Callable[[int, Sequence[Reject]], object]  # the number of rows that were read, and the unreadable ones


@dataclass(frozen=True)
class PartSettings:
    """How parts are embedded.

    Attributes:
        modalities: what is embedded, in the order of the columns.
        dtype: of the vectors, see ``multimodal.search.stored_vectors``.
        precision: with which the encoders compute.
        metadata: the columns that describe a row; None: those that the table names.
        batch_size: items of ordinary cost in a batch; None: see ``Embedder.encode``.
    """

    modalities: Sequence[str]
    dtype: str = "float32"
    precision: Precision = "float32"
    metadata: Sequence[str] | None = None
    batch_size: int | None = None


@dataclass(frozen=True)
class Part:
    """An embedded part.

    Attributes:
        table: the columns ``key``, ``group``, ``metadata``, ``digest`` and those of the vectors.
        unchanged: rows of it whose vectors were taken over.
    """

    table: pa.Table
    unchanged: int


@dataclass
class _Waiting:
    """Items of one modality, and the places of their rows in the part."""

    items: list[Any] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    bytes: int = 0

    @property
    def is_full(self) -> bool:
        """Whether waiting for more items would gain nothing, or take too much memory."""
        return bool(self.items) and (
            min(self.costs) == max(self.costs) or sum(self.costs) >= WAITING_COST or self.bytes >= WAITING_BYTES
        )


class PartEmbedder:
    """Embeds rows of a table, a part at a time.

    Args:
        embedder: the model.
        samples: the table.
        settings: how parts are embedded.
        earlier: vectors to take over; None: none.

    Examples:
        >>> from multimodal import create
        >>> embedder = Embedder({"text": create("text", "bag")}, dim=8)
        >>> embedder.fit_processors({"text": ["a red cup"]})
        >>> samples = Samples.of([{"title": "a red cup"}, {"title": None}], {"text": "title"})
        >>> part = PartEmbedder(embedder, samples, PartSettings(["text"])).embed(np.arange(2))
        >>> part.table["key"].to_pylist(), part.table["text"].null_count
        (['0', '1'], 1)
    """

    def __init__(
        self, embedder: Embedder, samples: Samples, settings: PartSettings, earlier: EarlierVectors | None = None
    ) -> None:
        self.embedder, self.samples, self.settings, self.earlier = (
            embedder,
            samples.without_targets(),
            settings,
            earlier,
        )
        self.processors = {m: embedder.processors[m] for m in settings.modalities}

    def embed(self, rows: np.ndarray, on_read: OnRead | None = None) -> Part:
        """Embed rows ``(r,)``; unreadable ones are left out, one with alternatives is several."""
        described: dict[str, list[Any]] = {name: [] for name in ("key", "group", "metadata", "digest")}
        waiting = {m: _Waiting() for m in self.processors}
        vectors: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {m: [] for m in self.processors}
        for start in range(0, len(rows), READ_ROWS):
            group = rows[start : start + READ_ROWS].tolist()
            rejects = self._read(group, described, waiting)
            for modality, items in waiting.items():
                if items.is_full:
                    vectors[modality].append(self._encode(modality, items))
                    waiting[modality] = _Waiting()
            if on_read is not None:
                on_read(len(group), rejects)
        for modality, items in waiting.items():
            if items.items:
                vectors[modality].append(self._encode(modality, items))
        return self._assemble(described, vectors)

    def _read(self, rows: list[int], described: dict[str, list[Any]], waiting: dict[str, _Waiting]) -> list[Reject]:
        rejects, items = [], self._process_together(rows)
        for row in rows:
            metadata = None
            for sample in self.samples.items(row, self.processors, cache=items):
                if isinstance(sample, Reject):
                    rejects.append(sample)
                    continue
                if metadata is None:
                    metadata = json.dumps(self.samples.metadata(row, self.settings.metadata), ensure_ascii=False)
                digest = row_digest(sample.values, self.processors)
                place = len(described["key"])
                for name, value in zip(described, (sample.key, sample.group, metadata, digest), strict=True):
                    described[name].append(value)
                if self.earlier is None or digest not in self.earlier:
                    for modality, item in sample.values.items():
                        self._wait(waiting[modality], self.processors[modality].cost(item), item, place)
        return rejects

    def _process_together(self, rows: list[int]) -> dict[tuple[int, str], Any]:
        """Return the items of processors that are faster with many values; the other cells are read one at a time."""
        items: dict[tuple[int, str], Any] = {}
        for modality, processor in self.processors.items():
            if type(processor).process is Processor.process:
                continue
            for column in self.samples.schema.columns[modality]:
                try:
                    cells = {row: cell for row in rows if (cell := self.samples.cell(row, column)) is not None}
                    if processor.reads_files:
                        cells = {row: resolve_file_cell(cell, self.samples.base) for row, cell in cells.items()}
                    made = processor.process(list(cells.values()))
                except Exception:  # reported when the cell is read alone
                    continue
                items |= {(row, f"{modality} {column}"): item for row, item in zip(cells, made, strict=True)}
        return items

    @staticmethod
    def _wait(waiting: _Waiting, cost: float, item: Any, place: int) -> None:
        waiting.items.append(item)
        waiting.places.append(place)
        waiting.costs.append(cost)
        waiting.bytes += _bytes_of(item)

    def _encode(self, modality: str, waiting: _Waiting) -> tuple[np.ndarray, np.ndarray]:
        settings = self.settings
        vectors = self.embedder.encode_items(modality, waiting.items, settings.batch_size, settings.precision)
        return np.array(waiting.places), to_stored(vectors, settings.dtype)

    def _assemble(
        self, described: dict[str, list[Any]], vectors: dict[str, list[tuple[np.ndarray, np.ndarray]]]
    ) -> Part:
        count = len(described["key"])
        taken = np.zeros(0, np.int64)
        if self.earlier is not None:
            taken = np.array([place for place, d in enumerate(described["digest"]) if d in self.earlier], np.int64)
            for modality, found in self.earlier.take([described["digest"][place] for place in taken]).items():
                vectors[modality] += [(taken[places], stored) for places, stored in found]
        columns: dict[str, Any] = dict(described)
        columns["digest"] = pa.array(described["digest"], pa.binary())
        for modality, found in vectors.items():
            stored = np.zeros((count, self.embedder.dim), self.settings.dtype)
            present = np.zeros(count, bool)
            for places, numbers in found:
                stored[places], present[places] = numbers, True
            columns[modality] = to_column(stored, present)
        strings = {name: pa.array(columns[name], pa.string()) for name in ("key", "group", "metadata")}
        return Part(pa.table(columns | strings), len(taken))


def embedded_modalities(embedder: Embedder, samples: Samples) -> list[str]:
    """Return the modalities that both the model and the table have.

    Raises:
        MultimodalError: there are none, or one is named like a column of a part.
    """
    modalities = [m for m in embedder.modalities if m in samples.modalities]
    if not modalities:
        raise MultimodalError(f"The model knows {embedder.modalities}, the table only {samples.modalities}.")
    for modality in modalities:
        if modality in ("key", "group", "metadata", "digest"):
            raise MultimodalError(f"The modality {modality!r} has the name of another column of embeddings.")
    return modalities


def _bytes_of(item: Any) -> int:
    """Return about how much memory an item takes."""
    if isinstance(item, np.ndarray | torch.Tensor):
        return item.nbytes
    if isinstance(item, Mapping):
        return sum(map(_bytes_of, item.values()))
    return sum(map(_bytes_of, item)) if isinstance(item, list | tuple) else 32
