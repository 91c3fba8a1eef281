"""Batches of samples: a data set for the workers, an order that depends on seed and epoch alone, a loader that resumes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from multimodal.core.batch import Batch, Sample
from multimodal.core.encoder import Processor
from multimodal.core.errors import MultimodalError
from multimodal.data.samples import Samples


@dataclass(frozen=True)
class Draw:
    """One row to read; ``seed`` is given for training and determines its augmentation."""

    row: int
    seed: tuple[int, ...] | None = None


class ProcessedSamples(Dataset[Any]):
    """Draw -> the sample with its values processed into items."""

    def __init__(self, samples: Samples, processors: Mapping[str, Processor]) -> None:
        self.samples, self.processors = samples, dict(processors)

    def __getitem__(self, draw: Draw) -> Sample:
        raw = self.samples.read(draw.row, list(self.processors))
        rng = None if draw.seed is None else np.random.default_rng(draw.seed)
        items: dict[str, Any] = {}
        for modality, value in raw.values.items():
            processor = self.processors[modality]
            try:
                item = processor(value)
            except MultimodalError as error:
                raise self.samples.failed(draw.row, modality, error) from error
            items[modality] = item if rng is None else processor.augment(item, rng)
        return Sample(raw.key, items, raw.group)


class EpochSampler(Sampler[list[Draw]]):
    """The batches of training epochs: the order is a function of (seed, epoch), whatever was read before.

    In an epoch every group gives one row, drawn at random: a batch holds as many different things as it can, and a
    thing with many rows (a letter that twelve fonts draw) weighs no more than one with a single row. What does not
    fill the last batch is left to other epochs.

    Args:
        rows: ``(n,)`` the rows of the training split.
        groups: ``(n,)`` their groups, as any comparable values.
        batch_size: rows in a batch over all ranks.
        seed, rank, world_size: each rank reads every ``world_size``-th row of a batch, starting with its own number.
    """

    def __init__(
        self, rows: np.ndarray, groups: np.ndarray, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        order = np.argsort(groups, kind="stable")
        _, starts, counts = np.unique(groups[order], return_index=True, return_counts=True)
        self.rows, self.starts, self.counts = rows[order], starts, counts
        self.batch_size, self.seed, self.rank, self.world_size = batch_size, seed, rank, world_size
        self.epoch = 0
        self.start = 0  # the batch of the epoch that the next iteration begins with

    def __len__(self) -> int:
        return len(self.counts) // self.batch_size

    def __iter__(self) -> Iterator[list[Draw]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        chosen = self.rows[self.starts + rng.integers(self.counts)]
        chosen = chosen[rng.permutation(len(chosen))]
        for batch in range(self.start, len(self)):
            mine = chosen[batch * self.batch_size + self.rank : (batch + 1) * self.batch_size : self.world_size]
            yield [Draw(row, (self.seed, self.epoch, row)) for row in mine.tolist()]


class ResumableLoader(DataLoader[Batch]):
    """A loader of training batches whose place can be saved and restored to the batch (``state_dict``).

    An iteration goes on from the place, the batch after the last one handed out, to the end of that epoch. What
    workers have read ahead does not count.
    """

    def __init__(self, dataset: ProcessedSamples, sampler: EpochSampler, **options: Any) -> None:
        super().__init__(dataset, batch_sampler=sampler, collate_fn=Collate(dataset.processors), **options)
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


@dataclass(frozen=True)
class Collate:
    """The workers' ``collate_fn``: samples of items -> ``Batch``."""

    processors: dict[str, Processor]

    def __call__(self, samples: list[Sample]) -> Batch:
        return Batch.collate(samples, self.processors)


def ordered_loader(
    samples: Samples,
    rows: np.ndarray,
    processors: Mapping[str, Processor],
    batch_size: int,
    options: Mapping[str, Any] | None = None,
) -> DataLoader[Batch]:
    """Batches of given rows in their order, without augmentation."""
    data = ProcessedSamples(samples, processors)
    draws = [Draw(row) for row in rows.tolist()]
    collate = Collate(data.processors)
    return DataLoader(data, batch_size=batch_size, sampler=draws, collate_fn=collate, **(options or {}))
