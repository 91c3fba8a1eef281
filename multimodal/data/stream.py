"""Training from a stream: rows that are read one after another, from files that need not fit anywhere.

1. the files of an epoch in an order of their own -> rows -> those of the training split, each with a number;
2. rows -> windows of ``buffer`` rows, each shuffled -> batches, numbered;
3. worker w of W processes the batches w, w + W, ...; rank r of R takes every R-th row of a batch.

The order is a function of seed and epoch alone, whatever the numbers of workers and ranks are: no row is lost or
repeated, and a stopped run goes on at its batch. For that every worker reads all rows, but processes only its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from multimodal.core.batch import Batch, MicroBatches
from multimodal.core.distributed import until_any_rank_ends
from multimodal.core.encoder import Processor
from multimodal.core.errors import UsageError
from multimodal.core.rejects import Reject, Rejects
from multimodal.data.loaders import CheckedLoader, Collate
from multimodal.data.schema import Row, Schema, class_names
from multimodal.data.tables.cells import raw_value
from multimodal.data.tables.file_cells import resolve_file_cell
from multimodal.data.tables.joined import join_cells, split_joined_name
from multimodal.data.tables.open import stream_rows
from multimodal.data.tables.source import Source

SAMPLED_ROWS = 1_000  # rows that tell what a column holds
MAX_FIT_ROWS = 100_000  # rows at the beginning of the stream that processors learn from


@dataclass(frozen=True)
class StreamedRow:
    """One row: its number in the stream of all files in the order of their names is not known, so it is named by file."""

    number: int  # in its file
    file: str
    cells: Mapping[str, Any]

    base: str | None

    @property
    def place(self) -> str:
        """The file, relative to the stream's folder."""
        return self.file.removeprefix(f"{self.base}/") if self.base else self.file

    @property
    def name(self) -> str:
        return f"{self.place}:{self.number}"

    @property
    def row(self) -> Row:
        return Row(self.number, self.name, self.cell, self.base)

    def cell(self, column: str) -> Any:
        parts = split_joined_name(column, self.cells)
        return raw_value(self.cells.get(column)) if len(parts) == 1 else join_cells(self.cell, parts)


@dataclass(frozen=True)
class Stream:
    """The rows of a source, in order.

    Args:
        source: the files.
        schema: what their columns mean.
        splits: the splits whose rows are taken; ("all",): all rows.
    """

    source: Source
    schema: Schema
    splits: tuple[str, ...]

    def check(self) -> None:
        """Raise a ``UsageError`` if a column that is named is none of the stream's."""
        first = list(islice(self._cells(), SAMPLED_ROWS if self.schema.targets else 1))
        if not first:
            raise UsageError(f"The table {self.source.name!r} has no rows.")
        self.schema.check(self.source.name, list(first[0]))
        for name, column in self.schema.targets.items():
            if names := class_names(raw_value(cells.get(column)) for cells in first):
                raise UsageError(
                    f"targets.{name}: the column {column!r} holds names of classes ({', '.join(names[:3])}, ...), which have"
                    " numbers only where all rows are known: leave out data.access: streamed, or write numbers."
                )

    def _cells(self) -> Iterator[dict[str, Any]]:
        for file in self.source.files:
            yield from self._cells_of(file)

    def _cells_of(self, file: str) -> Iterator[dict[str, Any]]:
        split = self.schema.split
        for number, cells in enumerate(stream_rows(self.source, file)):
            if number == 0 and isinstance(split, str) and split not in cells and "all" not in self.splits:
                raise UsageError(f"{file} has no column {split!r}, which names each row's split.")
            yield cells

    def rows(self, files: list[str] | None = None) -> Iterator[StreamedRow]:
        for file in self.source.files if files is None else files:
            for number, cells in enumerate(self._cells_of(file)):
                row = StreamedRow(number, file, cells, self.source.base)
                if "all" in self.splits or self.schema.split_of(row.row) in self.splits:
                    yield row

    def values(self, modality: str, processor: Processor) -> Iterator[Any]:
        """The raw values of a modality at the beginning of the stream, for a processor to learn from."""
        for row in islice(self.rows(), MAX_FIT_ROWS):
            for column in self.schema.columns[modality]:
                try:
                    value = row.cell(column)
                    value = resolve_file_cell(value, self.source.base) if processor.reads_files else value
                except Exception:  # reading the row will tell
                    continue
                if value is not None:
                    yield value


class StreamedBatches(IterableDataset[Any]):
    """The batches of one epoch of a stream.

    Args:
        stream: the rows.
        processors: of the modalities.
        batch_size: rows in a batch over all ranks. The last batch of an epoch may be smaller; it is left out if it has
            fewer rows than there are ranks.
        buffer: rows that are shuffled together; 0: the rows come in their order, without augmentation, as for validation.
        seed, rank, world_size: see ``BatchSampler``.
        micro_batch: rows in a part of a batch; None: batches are whole.
    """

    def __init__(
        self,
        stream: Stream,
        processors: Mapping[str, Processor],
        batch_size: int,
        buffer: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        micro_batch: int | None = None,
    ) -> None:
        self.stream, self.processors, self.collate = stream, dict(processors), Collate(dict(processors), micro_batch)
        self.batch_size, self.buffer, self.seed = batch_size, buffer, seed
        self.rank, self.world_size = rank, world_size
        # shared with workers that live on from epoch to epoch
        self._place = torch.zeros(2, dtype=torch.int64).share_memory_()

    def begin(self, epoch: int, batch: int) -> None:
        """Where the next iteration begins."""
        self._place[0], self._place[1] = epoch, batch

    def __iter__(self) -> Iterator[Any]:
        epoch, start = self._place.tolist()
        worker = get_worker_info()
        ours, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for number, rows in enumerate(self._batches(epoch)):
            if number >= start and (number - start) % workers == ours and len(rows) >= self.world_size:
                yield self._batch(rows[self.rank :: self.world_size], epoch)

    def _batches(self, epoch: int) -> Iterator[list[StreamedRow]]:
        shuffled = self._shuffled(epoch)
        while rows := list(islice(shuffled, self.batch_size)):
            yield rows

    def _shuffled(self, epoch: int) -> Iterator[StreamedRow]:
        if not self.buffer:
            yield from self.stream.rows()
            return
        rng = np.random.default_rng([self.seed, epoch])
        rows = self.stream.rows([self.stream.source.files[i] for i in rng.permutation(len(self.stream.source.files))])
        while window := list(islice(rows, self.buffer)):
            for position in rng.permutation(len(window)):
                yield window[position]

    def _batch(self, rows: list[StreamedRow], epoch: int) -> Batch | MicroBatches:
        files = self.stream.source.files
        return self.collate([
            [
                replace(item, file=row.place) if isinstance(item, Reject) else item
                for item in self.stream.schema.items(
                    row.row,
                    self.processors,
                    (self.seed, epoch, files.index(row.file), row.number) if self.buffer else None,
                )
            ]
            for row in rows
        ])  # fmt: skip


class StreamLoader(CheckedLoader):
    """The training batches of a stream, epoch after epoch; its place can be saved and restored to the batch.

    Whoever trains reads a batch ahead, to know the last one: ``taken`` is to be called when a batch is really used.
    """

    def __init__(self, batches: StreamedBatches, rejects: Rejects, **options: Any) -> None:
        super().__init__(batches, rejects, batch_size=None, **options)
        self.batches = batches
        self._place = {"epoch": 0, "batch": 0}
        self._handed_out: deque[dict[str, int]] = deque()  # the places after the batches that are not used yet

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        epoch, start = self._place["epoch"], self._place["batch"]
        self.batches.begin(epoch, start)
        self._handed_out.clear()
        number = start
        for number, batch in enumerate(until_any_rank_ends(super().__iter__()), start=start + 1):
            self._handed_out.append({"epoch": epoch, "batch": number})
            yield batch
        end = {"epoch": epoch + 1, "batch": 0}
        if not number:
            stream = self.batches.stream
            raise UsageError(
                f"No batch can be made of {stream.source.name}: too few of its rows are in the split"
                f" {' or '.join(map(repr, stream.splits))}."
            )
        if self._handed_out:
            self._handed_out[-1] = end
        else:
            self._place = end

    def taken(self) -> None:
        """The next of the batches that were handed out is used."""
        self._place = self._handed_out.popleft()

    def state_dict(self) -> dict[str, int]:
        return dict(self._place)

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._place = dict(state)
