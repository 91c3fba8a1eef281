"""Loaders of batches: they process samples in workers, record rejects, and resume at any batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, get_worker_info

from multimodal.core.batch import Batch, MicroBatches, Sample
from multimodal.core.encoder import Processor
from multimodal.core.rejects import Reject, Rejects
from multimodal.data.samplers import BatchSampler, Draw
from multimodal.data.samples import Samples


class ProcessedSamples(Dataset[Any]):
    """Data set that maps a ``Draw`` to the row's samples of processed items, or to its reject.

    Args:
        samples: the rows.
        processors: modality -> its processor, for the modalities to read.
        cache_items: keep items, before their augmentation, in the memory of the process that reads them.

    Examples:
        >>> samples = Samples.of([{"title": "a cup"}], {"text": "title"})
        >>> len(ProcessedSamples(samples, {})[Draw(0)])
        1
    """

    def __init__(self, samples: Samples, processors: Mapping[str, Processor], cache_items: bool = False) -> None:
        self.samples, self.processors = samples, dict(processors)
        self._item_cache: dict[tuple[int, str], Any] | None = {} if cache_items else None

    def __getitem__(self, draw: Draw) -> list[Sample | Reject]:
        return self.samples.items(draw.row, self.processors, draw.seed, self._item_cache)


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
        super().__init__(data, **options)
        self.rejects = rejects

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for batch in super().__iter__():
            self.rejects.add(batch.rejects, seen=len(batch) + len(batch.rejects))
            yield batch


class ResumableLoader(CheckedLoader):
    """Loader of training batches whose position can be saved and restored at any batch (``state_dict``).

    An iteration continues from the position, which is after the last batch that was returned, to the end of the epoch.
    Batches that workers have prefetched do not count.

    Args:
        dataset: the rows.
        sampler: the batches of rows in each epoch.
        rejects: records the rejects of the batches.
        micro_batch: rows in a micro-batch; None: batches are not divided.
        **options: arguments of ``DataLoader``.

    Examples:
        >>> from multimodal.data.samplers import EpochSampler
        >>> data = ProcessedSamples(Samples.of([{"title": "a cup"}, {"title": "a jug"}], {"text": "title"}), {})
        >>> sampler = EpochSampler(np.arange(2), groups=np.arange(2), batch_size=1, seed=0)
        >>> loader = ResumableLoader(data, sampler, Rejects(0.01, rows=2))
        >>> batches = iter(loader)
        >>> _ = next(batches)
        >>> loader.state_dict()
        {'epoch': 0, 'batch': 1}
    """

    def __init__(
        self,
        dataset: ProcessedSamples,
        sampler: BatchSampler,
        rejects: Rejects,
        micro_batch: int | None = None,
        **options: Any,
    ) -> None:
        collate = Collate(dataset.processors, micro_batch)
        super().__init__(dataset, rejects, batch_sampler=sampler, collate_fn=collate, **options)
        self.train_sampler = sampler
        self._position = {"epoch": 0, "batch": 0}

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self.train_sampler.epoch, self.train_sampler.start = self._position["epoch"], self._position["batch"]
        for number, batch in enumerate(super().__iter__(), start=self.train_sampler.start + 1):
            is_last = number == len(self)
            self._position = {"epoch": self.train_sampler.epoch + is_last, "batch": 0 if is_last else number}
            yield batch

    def state_dict(self) -> dict[str, int]:
        return dict(self._position)

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._position = dict(state)


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
    draws = [Draw(row) for row in rows.tolist()]
    return CheckedLoader(
        data, rejects, batch_size=batch_size, sampler=draws, collate_fn=Collate(data.processors), **(options or {})
    )
