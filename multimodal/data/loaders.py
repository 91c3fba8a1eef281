"""Loaders of batches: they process samples in workers, record rejects, and resume at any batch."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from lightning.fabric.utilities.seed import pl_worker_init_function
from torch.utils.data import DataLoader, Dataset, SequentialSampler, get_worker_info

from multimodal.core.batch import Batch, MicroBatches, Sample
from multimodal.core.encoder import Processor
from multimodal.core.errors import MultimodalError
from multimodal.core.rejects import Reject, Rejects
from multimodal.data.modality_drop import kept_modalities
from multimodal.data.samplers import BatchSampler, Draw
from multimodal.data.samples import Samples


class ProcessedSamples(Dataset[Any]):
    """Data set that maps a ``Draw`` to the row's samples of processed items, or to its reject.

    Args:
        samples: the rows.
        processors: modality -> its processor, for the modalities to read.
        cache_items: keep items, before their augmentation, in the memory of the process that reads them.
        drop: modality -> the probability that it is left out of a row in training, see ``kept_modalities``.

    Examples:
        >>> samples = Samples.of([{"title": "a cup"}], {"text": "title"})
        >>> len(ProcessedSamples(samples, {})[Draw(0)])
        1
    """

    def __init__(
        self,
        samples: Samples,
        processors: Mapping[str, Processor],
        cache_items: bool = False,
        drop: Mapping[str, float] | None = None,
    ) -> None:
        self.samples, self.processors, self.drop = samples, dict(processors), dict(drop or {})
        self._item_cache: dict[tuple[int, str], Any] | None = {} if cache_items else None

    def __getitem__(self, draw: Draw) -> list[Sample | Reject]:
        processors = self.processors
        if draw.seed is not None:
            processors = kept_modalities(processors, self.drop, draw.seed)
        return self.samples.items(draw.row, processors, draw.seed, self._item_cache)


@dataclass(frozen=True)
class Collate:
    """The workers' ``collate_fn``: samples of processed items, or rejects, of each row -> a batch.

    Args:
        processors: modality -> its processor.
        micro_batch: rows in a micro-batch; None: batches are not divided.

    Returns:
        A call returns a ``Batch``; with ``micro_batch``, a ``MicroBatches``. In a worker, its tensors share one block of
        memory.

    Examples:
        >>> rows = [[Sample("a", {}, "=cups")], [Sample("b", {}, "=jugs")], [Sample("c", {}, "=jugs")]]
        >>> Collate({})(rows).keys
        ('a', 'b', 'c')
        >>> [batch.keys for batch in Collate({}, micro_batch=2)(rows).parts]
        [('a', 'b'), ('c',)]
    """

    processors: dict[str, Processor]
    micro_batch: int | None = None

    def __call__(self, rows: Sequence[Sequence[Sample | Reject]]) -> Batch | MicroBatches:
        if self.micro_batch is None:
            batch = self.batch(rows)
        else:
            starts = range(0, len(rows), self.micro_batch)
            batch = MicroBatches(tuple(self.batch(rows[start : start + self.micro_batch]) for start in starts))
        return batch if get_worker_info() is None else batch.in_one_block()

    def batch(self, rows: Sequence[Sequence[Sample | Reject]]) -> Batch:
        """Collate the samples and rejects of rows to one batch."""
        samples = [sample for row in rows for sample in row if isinstance(sample, Sample)]
        rejects = tuple(reject for row in rows for reject in row if isinstance(reject, Reject))
        return replace(Batch.collate(samples, self.processors), rejects=rejects)


class CheckedLoader(DataLoader[Batch]):
    """Loader that records the rejects of its batches, and raises an error if there are too many.

    Args:
        data: the data set that the workers read.
        rejects: records the rejects and limits their number.
        **options: arguments of ``DataLoader``.

    Examples:
        >>> data = ProcessedSamples(Samples.of([{"title": "a cup"}], {"text": "title"}), {})
        >>> loader = CheckedLoader(data, Rejects(0.01, rows=1), sampler=[Draw(0)], collate_fn=Collate({}))
        >>> [batch.keys for batch in loader]
        [('0',)]
    """

    def __init__(self, data: Dataset[Any], rejects: Rejects, **options: Any) -> None:
        super().__init__(data, worker_init_fn=prepare_worker, **options)
        self.rejects = rejects

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for batch in super().__iter__():
            self.rejects.add(batch.rejects, seen=len(batch) + len(batch.rejects))
            yield batch


def prepare_worker(number: int) -> None:
    """Let a worker outlive the first signal that ends training; Lightning seeds it as well, where it is asked to.

    Schedulers signal all processes of a job. The training process finishes its step, for which it may need the worker.

    Args:
        number: the worker's number.
    """
    if int(os.environ.get("PL_SEED_WORKERS", "0")):
        pl_worker_init_function(number)

    def ignore_once(received: int, frame: Any) -> None:
        signal.signal(received, signal.SIG_DFL)

    for each in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, each):
            signal.signal(getattr(signal, each), ignore_once)


class ResumableLoader(CheckedLoader):
    """Loader of training batches whose position can be saved and restored at any batch (``state_dict``).

    An iteration continues from the position, which is after the last batch that was returned, to the end of the epoch.
    Batches that workers have prefetched do not count.

    Args:
        dataset: the rows.
        sampler: the batches of rows in each epoch.
        rejects: records the rejects of the batches.
        micro_batch: rows in a micro-batch; None: batches are not divided.
        endless: continue with the next epoch instead of ending, for a reader that takes a limited number of batches at a
            time (``limit_train_batches``).
        repeated: read only the first batches of the first epoch, this many, in every epoch (``overfit_batches``).
        **options: arguments of ``DataLoader``.

    Examples:
        >>> from multimodal.data.samplers import EpochSampler
        >>> data = ProcessedSamples(Samples.of([{"title": "a cup"}, {"title": "a jug"}], {"text": "title"}), {})
        >>> sampler = EpochSampler(np.arange(2), groups=np.arange(2), batch_size=1, seed=0)
        >>> loader = ResumableLoader(data, sampler, Rejects(0.01, rows=2))
        >>> batches = iter(loader)
        >>> _ = next(batches)
        >>> loader.position
        {'epoch': 0, 'batch': 1}
    """

    def __init__(
        self,
        dataset: ProcessedSamples,
        sampler: BatchSampler,
        rejects: Rejects,
        micro_batch: int | None = None,
        endless: bool = False,
        repeated: int | None = None,
        **options: Any,
    ) -> None:
        collate = Collate(dataset.processors, micro_batch)
        super().__init__(dataset, rejects, batch_sampler=sampler, collate_fn=collate, **options)
        self.train_sampler = sampler
        self.endless, self.repeated = endless, repeated
        self.position = {"epoch": 0, "batch": 0}

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        yield from self._rest_of_epoch()
        while self.endless:
            yield from self._rest_of_epoch()

    def _rest_of_epoch(self) -> Iterator[Batch]:
        epoch, start = self.position["epoch"], self.position["batch"]
        end = len(self) if self.repeated is None else self.repeated
        if start >= end:
            raise MultimodalError(f"The loader's position, batch {start:,}, is not in an epoch of {end:,} batches.")
        self.train_sampler.epoch, self.train_sampler.start = epoch if self.repeated is None else 0, start
        batches = super().__iter__()
        for number, batch in enumerate(batches, start=start + 1):
            is_last = number == end
            self.position = {"epoch": epoch + is_last, "batch": 0 if is_last else number}
            yield batch
            if is_last:
                return

    def state_dict(self) -> dict[str, Any]:
        return {**self.position, "order": self.train_sampler.order}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.position = {"epoch": state["epoch"], "batch": state["batch"]}


def ordered_loader(
    samples: Samples,
    rows: np.ndarray,
    processors: Mapping[str, Processor],
    batch_size: int,
    rejects: Rejects,
    options: Mapping[str, Any] | None = None,
) -> CheckedLoader:
    """Create a loader of rows in the given order, without augmentation and with all alternatives of a modality.

    Args:
        samples: the samples.
        rows: ``(r,)`` row numbers.
        processors: modality -> its processor, for the modalities to read.
        batch_size: rows in a batch.
        rejects: records the rejects of the batches.
        options: arguments of ``DataLoader``.
    """
    return loader_in_order(ProcessedSamples(samples, processors), rows, batch_size, rejects, options)


def loader_in_order(
    data: ProcessedSamples,
    rows: np.ndarray,
    batch_size: int,
    rejects: Rejects,
    options: Mapping[str, Any] | None = None,
) -> CheckedLoader:
    """Create the loader of ``ordered_loader`` for a data set of your own.

    Args:
        data: the data set that is read.
        rows: ``(r,)`` row numbers.
        batch_size: rows in a batch.
        rejects: records the rejects of the batches.
        options: arguments of ``DataLoader``.
    """
    draws = _DrawsInOrder([Draw(row) for row in rows.tolist()])
    return CheckedLoader(
        data, rejects, batch_size=batch_size, sampler=draws, collate_fn=Collate(data.processors), **(options or {})
    )


class _DrawsInOrder(SequentialSampler):
    """Draws in a fixed order, of a type by which Lightning sees that they are not shuffled (``overfit_batches``)."""

    def __init__(self, draws: Sequence[Draw]) -> None:
        super().__init__(draws)
        self.draws = draws

    def __iter__(self) -> Iterator[Draw]:  # type: ignore[override]
        return iter(self.draws)

    def __len__(self) -> int:
        return len(self.draws)
