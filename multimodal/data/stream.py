"""Training from a stream: rows are read sequentially from files that may be larger than memory and disk.

1. files in the order of the epoch -> rows -> rows of the training split, each with a number;
2. rows -> windows of ``buffer`` rows, each shuffled -> batches, numbered;
3. worker w of W processes the batches w, w + W, ...; rank r of R takes every R-th row of a batch.

The order depends only on the seed and the epoch, not on the numbers of workers and ranks: no row is lost or repeated, and
a stopped run resumes at its batch. To achieve this, every worker reads all rows, but processes only its own batches.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from multimodal.core.batch import Batch, MicroBatches, Sample
from multimodal.core.distributed import until_any_rank_ends
from multimodal.core.encoder import Processor
from multimodal.core.errors import UsageError
from multimodal.core.rejects import Reject, Rejects
from multimodal.data.loaders import CheckedLoader, Collate
from multimodal.data.modality_drop import kept_modalities
from multimodal.data.schema import Row, Schema
from multimodal.data.tables.cells import raw_value
from multimodal.data.tables.file_cells import resolve_file_cell
from multimodal.data.tables.joined import join_cells, split_joined_name
from multimodal.data.tables.open import stream_rows
from multimodal.data.tables.source import Source
from multimodal.data.targets import class_names

SAMPLED_ROWS = 1_000  # rows that determine whether a target is numeric
MAX_FIT_ROWS = 100_000  # rows at the beginning of the stream that processors are fitted on
MAX_TARGET_ROWS = 10_000  # rows at the beginning of the stream that the size and units of a target are taken from


@dataclass(frozen=True)
class StreamedRow:
    """One row of a stream, identified by its file and its number there: its number in the table is unknown.

    Args:
        number: number of the row in its file.
        file: address of the file.
        cells: column -> cell.
        base: the folder or URL of the stream.

    Examples:
        >>> row = StreamedRow(7, "shop/a.csv", {"title": "a cup"}, "shop")
        >>> row.name, row.cell("title")
        ('a.csv:7', 'a cup')
    """

    number: int
    file: str
    cells: Mapping[str, Any]
    base: str | None

    @property
    def relative_file(self) -> str:
        """The file, relative to the stream's folder."""
        return self.file.removeprefix(f"{self.base}/") if self.base else self.file

    @property
    def name(self) -> str:
        """The file, relative to the stream's folder, and the number of the row: ``"a.csv:7"``."""
        return f"{self.relative_file}:{self.number}"

    @property
    def row(self) -> Row:
        """The row as a schema reads it."""
        return Row(self.number, self.name, self.cell, self.base)

    def cell(self, column: str) -> Any:
        """Return the raw value of a column, or of columns joined by ``+``; None: missing."""
        parts = split_joined_name(column, self.cells)
        return raw_value(self.cells.get(column)) if len(parts) == 1 else join_cells(self.cell, parts)


@dataclass(frozen=True)
class Stream:
    r"""The rows of a source, in order.

    Args:
        source: the files.
        schema: meaning of the columns.
        splits: the splits to read; ("all",): all rows.

    Examples:
        >>> from pathlib import Path
        >>> from multimodal.data.tables.open import locate
        >>> _ = Path("shop.jsonl").write_text('{"title": "a cup"}\n{"title": "a jug"}\n')
        >>> stream = Stream(locate("shop.jsonl"), Schema.from_settings({"text": "title"}), ("all",))
        >>> [row.cell("title") for row in stream.rows()]
        ['a cup', 'a jug']
    """

    source: Source
    schema: Schema
    splits: tuple[str, ...]

    def check(self) -> None:
        """Raise a ``UsageError`` if the stream has no rows, not all columns of the schema, or targets with class names."""
        sample = list(islice(self._cells(), SAMPLED_ROWS if self.schema.targets else 1))
        if not sample:
            raise UsageError(f"The table {self.source.name!r} has no rows.")
        self.schema.check(self.source.name, list(sample[0]))
        for name, column in self.schema.targets.items():
            if names := class_names(raw_value(cells.get(column)) for cells in sample):
                raise UsageError(
                    f"targets.{name}: the column {column!r} has class names ({', '.join(names[:3])}, ...). They can only be"
                    " numbered if all rows are known: leave out access: streamed, or write class indices."
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
        """Read the rows of the splits in order, from the given files or from all files.

        Raises:
            UsageError: a file does not have the column that names the splits.
        """
        for file in self.source.files if files is None else files:
            for number, cells in enumerate(self._cells_of(file)):
                row = StreamedRow(number, file, cells, self.source.base)
                if "all" in self.splits or self.schema.split_of(row.row) in self.splits:
                    yield row

    def target_cells(self, name: str) -> Iterator[Any]:
        """Read the cells of a target in the first ``MAX_TARGET_ROWS`` rows; None: missing."""
        return (row.cell(self.schema.targets[name]) for row in islice(self.rows(), MAX_TARGET_ROWS))

    def values(self, modality: str, processor: Processor) -> Iterator[Any]:
        """Read the raw values of a modality in the first ``MAX_FIT_ROWS`` rows, to fit a processor on them.

        Args:
            modality: the modality.
            processor: if it reads files, cells that name files are resolved to the files.
        """
        for row in islice(self.rows(), MAX_FIT_ROWS):
            for column in self.schema.columns[modality]:
                try:
                    value = row.cell(column)
                    value = resolve_file_cell(value, self.source.base) if processor.reads_files else value
                except Exception:  # reported when the row is read for a batch
                    continue
                if value is not None:
                    yield value


class StreamedBatches(IterableDataset[Any]):
    r"""The batches of one epoch of a stream.

    Args:
        stream: the rows.
        processors: modality -> its processor, for the modalities to read.
        batch_size: rows in a batch over all ranks. The last batch of an epoch may be smaller; it is left out if it has
            fewer rows than there are ranks.
        buffer: rows that are shuffled together; 0: rows in order and without augmentation, as for validation.
        seed, rank, world_size: see ``BatchSampler``.
        micro_batch: rows in a micro-batch; None: batches are not divided.
        drop: modality -> the probability that it is left out of a row in training, see ``kept_modalities``.

    Examples:
        >>> from pathlib import Path
        >>> from multimodal.data.tables.open import locate
        >>> _ = Path("shop.csv").write_text("title\na cup\na jug\na pot\n")
        >>> stream = Stream(locate("shop.csv"), Schema.from_settings({"text": "title"}), ("all",))
        >>> batches = StreamedBatches(stream, {}, batch_size=2, buffer=0, seed=0)
        >>> [batch.keys for batch in batches]
        [('shop.csv:0', 'shop.csv:1'), ('shop.csv:2',)]
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
        drop: Mapping[str, float] | None = None,
    ) -> None:
        self.stream, self.processors, self.collate = stream, dict(processors), Collate(dict(processors), micro_batch)
        self.drop = dict(drop or {})
        self.batch_size, self.buffer, self.seed = batch_size, buffer, seed
        self.rank, self.world_size = rank, world_size
        # shared with persistent workers
        self._position = torch.zeros(2, dtype=torch.int64).share_memory_()

    @property
    def order(self) -> dict[str, int]:
        """What the order of the rows depends on besides the epoch; a place in an epoch holds only for an equal order."""
        source = self.stream.source
        names = "\n".join([*self.stream.splits, *(file.removeprefix(f"{source.base}/") for file in source.files)])
        return {
            "batch_size": self.batch_size,
            "seed": self.seed,
            "buffer": self.buffer,
            "files": len(source.files),
            "files_checksum": zlib.crc32(names.encode("utf-8", "surrogatepass")),
        }

    def start_at(self, epoch: int, batch: int) -> None:
        """Set the epoch and the batch at which the next iteration starts."""
        self._position[0], self._position[1] = epoch, batch

    def __iter__(self) -> Iterator[Any]:
        epoch, start = self._position.tolist()
        worker = get_worker_info()
        worker_id, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for number, rows in enumerate(self._batches(epoch)):
            if number >= start and (number - start) % workers == worker_id and len(rows) >= self.world_size:
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
        return self.collate([self._items(row, epoch) for row in rows])

    def _items(self, row: StreamedRow, epoch: int) -> list[Sample | Reject]:
        files, processors, seed = self.stream.source.files, self.processors, None
        if self.buffer:
            seed = (self.seed, epoch, files.index(row.file), row.number)
            processors = kept_modalities(processors, self.drop, seed)
        return [
            replace(item, file=row.relative_file) if isinstance(item, Reject) else item
            for item in self.stream.schema.items(row.row, processors, seed)
        ]


class StreamLoader(CheckedLoader):
    r"""Loader of training batches from a stream, whose position can be saved and restored at any batch (``state_dict``).

    Lightning prefetches a batch to detect the last one: call ``mark_used`` when a batch is actually used.

    Args:
        batches: the batches.
        rejects: records the rejects of the batches.
        endless: continue with the next epoch instead of ending, for a reader that takes a limited number of batches at a
            time (``limit_train_batches``).
        **options: arguments of ``DataLoader``.

    Examples:
        >>> from pathlib import Path
        >>> from multimodal.data.tables.open import locate
        >>> _ = Path("shop.csv").write_text("title\na cup\na jug\na pot\n")
        >>> stream = Stream(locate("shop.csv"), Schema.from_settings({"text": "title"}), ("all",))
        >>> loader = StreamLoader(StreamedBatches(stream, {}, batch_size=1, buffer=1, seed=0), Rejects(0.01, None))
        >>> batches = iter(loader)
        >>> _ = next(batches), next(batches)
        >>> loader.mark_used()
        >>> loader.position
        {'epoch': 0, 'batch': 1}
    """

    def __init__(self, batches: StreamedBatches, rejects: Rejects, endless: bool = False, **options: Any) -> None:
        super().__init__(batches, rejects, batch_size=None, **options)
        self.batches, self.endless = batches, endless
        self.position = {"epoch": 0, "batch": 0}
        self._prefetched_positions: deque[dict[str, int]] = deque()  # after each batch that is not used yet

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self._prefetched_positions.clear()
        epoch, start = self.position["epoch"], self.position["batch"]
        last = yield from self._rest_of_epoch(epoch, start)
        while self.endless or last == start > 0:  # with files that have lost rows, the position may be behind the end
            epoch, start = epoch + 1, 0
            last = yield from self._rest_of_epoch(epoch, start)

    def _rest_of_epoch(self, epoch: int, start: int) -> Generator[Batch, None, int]:
        """Yield the batches of an epoch from ``start`` on, and return the number after the last one."""
        self.batches.start_at(epoch, start)
        number = start
        for number, batch in enumerate(until_any_rank_ends(super().__iter__()), start=start + 1):
            self._prefetched_positions.append({"epoch": epoch, "batch": number})
            yield batch
        if not number:
            stream = self.batches.stream
            raise UsageError(
                f"{stream.source.name} has too few rows for a batch in the split"
                f" {' or '.join(map(repr, stream.splits))}."
            )
        end = {"epoch": epoch + 1, "batch": 0}
        if self._prefetched_positions:
            self._prefetched_positions[-1] = end
        else:
            self.position = end
        return number

    def mark_used(self) -> None:
        """Mark the earliest prefetched batch as used: the saved position is after it."""
        self.position = self._prefetched_positions.popleft()

    def state_dict(self) -> dict[str, Any]:
        return {**self.position, "order": self.batches.order}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.position = {"epoch": state["epoch"], "batch": state["batch"]}
