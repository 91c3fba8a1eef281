"""Batches of samples: a data set for the workers, loaders that resume and that take note of what cannot be read."""

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
    """Draw -> the row's samples with their values processed into items, or the reject that it is.

    Args:
        samples: the rows.
        processors: of the modalities to read.
        keep: keep the items, before their augmentation, in the memory of the process that reads them.
    """

    def __init__(self, samples: Samples, processors: Mapping[str, Processor], keep: bool = False) -> None:
        self.samples, self.processors = samples, dict(processors)
        self._kept: dict[tuple[int, str], Any] | None = {} if keep else None

    def __getitem__(self, draw: Draw) -> list[Sample | Reject]:
        return self.samples.items(draw.row, self.processors, draw.seed, self._kept)


@dataclass(frozen=True)
class Collate:
    """The workers' ``collate_fn``: rows of samples of items, or rejects -> ``Batch``, or with ``micro_batch`` in parts."""

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
        samples = [part for row in rows for part in row if isinstance(part, Sample)]
        rejects = tuple(part for row in rows for part in row if isinstance(part, Reject))
        return replace(Batch.collate(samples, self.processors), rejects=rejects)


class CheckedLoader(DataLoader[Batch]):
    """A loader that notes the rejects of its batches, and stops where there are too many.

    Args:
        data: what the workers read.
        rejects: where they are noted.
        options: those of ``DataLoader``.
    """

    def __init__(self, data: Dataset[Any], rejects: Rejects, **options: Any) -> None:
        super().__init__(data, **options)
        self.rejects = rejects

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for batch in super().__iter__():
            self.rejects.add(batch.rejects, seen=len(batch) + len(batch.rejects))
            yield batch


class ResumableLoader(CheckedLoader):
    """A loader of training batches whose place can be saved and restored to the batch (``state_dict``).

    An iteration goes on from the place, the batch after the last one handed out, to the end of that epoch. What
    workers have read ahead does not count.
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
        self.order = sampler
        self._place = {"epoch": 0, "batch": 0}

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self.order.epoch, self.order.start = self._place["epoch"], self._place["batch"]
        for number, batch in enumerate(super().__iter__(), start=self.order.start + 1):
            ended = number == len(self)
            self._place = {"epoch": self.order.epoch + ended, "batch": 0 if ended else number}
            yield batch

    def state_dict(self) -> dict[str, int]:
        return dict(self._place)

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._place = dict(state)


def ordered_loader(
    samples: Samples,
    rows: np.ndarray,
    processors: Mapping[str, Processor],
    batch_size: int,
    rejects: Rejects,
    options: Mapping[str, Any] | None = None,
) -> CheckedLoader:
    """Batches of given rows in their order, without augmentation, with all alternatives of a modality."""
    data = ProcessedSamples(samples, processors)
    draws = [Draw(row) for row in rows.tolist()]
    return CheckedLoader(
        data, rejects, batch_size=batch_size, sampler=draws, collate_fn=Collate(data.processors), **(options or {})
    )
