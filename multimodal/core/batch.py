"""Samples and batches: who has which modality."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

from multimodal.core.encoder import Inputs, Processor
from multimodal.core.errors import UsageError
from multimodal.core.rejects import Reject

BUFFER_ALIGNMENT = 64  # bytes


@dataclass(frozen=True)
class Sample:
    """One row of a table, with its values by modality.

    Args:
        key: unique name of the row.
        values: raw value (or processed item) of each modality that the row has.
        group: rows of one group are positives of each other.
        targets: supervised targets by name: a number, a class index or a list of numbers.
        negatives: hard negatives, samples that are similar but do not match; each has a group of its own.

    Examples:
        >>> sample = Sample("cup-1", {"text": "a red cup"}, group="cups")
        >>> sample.group, dict(sample.targets), sample.negatives
        ('cups', {}, ())
    """

    key: str
    values: Mapping[str, Any]
    group: str
    targets: Mapping[str, Any] = field(default_factory=dict)
    negatives: tuple[Sample, ...] = ()


def stable_hash(name: str) -> int:
    """Hash a name to a number in [0, 2^63), the same in every process (the first 63 bits of its BLAKE2b)."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") >> 1


@dataclass  # not frozen: Lightning converts precision by assigning to the fields
class Batch:
    """A batch of n samples, with each modality's collated inputs for the rows that have it.

    A modality that no row has is absent from ``inputs`` and ``rows``. Hard negatives are further rows, after the samples.
    No row is a positive of them; objectives use each as a negative of its own row alone.

    Args:
        inputs: modality -> the encoder's inputs for its n_m rows.
        rows: modality -> ``(n_m,)`` int64, ascending row numbers in [0, n).
        groups: ``(n,)`` int64; rows of equal group are positives of each other.
        keys: n names of rows.
        rejects: the rows that should be in this batch but cannot be read.
        targets: name -> ``(n,)`` or ``(n, c)`` float32, NaN where a row has none; classes are whole numbers. A target that
            no row has is absent.
        negative_of: ``(n,)`` int64: the row that this one is a hard negative of, or -1. None: there are no hard negatives.

    Examples:
        >>> import torch
        >>> text = {"tokens": torch.tensor([[5, 6], [7, 0]])}  # of rows 0 and 2; row 1 has no text
        >>> batch = Batch({"text": text}, {"text": torch.tensor([0, 2])}, groups=torch.tensor([1, 1, 2]))
        >>> len(batch), batch.rows["text"].tolist()
        (3, [0, 2])
    """

    inputs: dict[str, Inputs]
    rows: dict[str, Tensor]
    groups: Tensor
    keys: tuple[str, ...] = field(default=())
    rejects: tuple[Reject, ...] = field(default=())
    targets: dict[str, Tensor] = field(default_factory=dict)
    negative_of: Tensor | None = None

    def __len__(self) -> int:
        return len(self.groups)

    @classmethod
    def collate(cls, samples: Sequence[Sample], processors: Mapping[str, Processor]) -> Batch:
        """Collate samples, whose values are items of the processors, followed by their hard negatives.

        Args:
            samples: the rows, in order.
            processors: modality -> processor; its order is the order of the modalities.

        Raises:
            UsageError: a target has lists of different lengths.
        """
        negatives = [(negative, row) for row, sample in enumerate(samples) for negative in sample.negatives]
        negative_of = torch.tensor([-1] * len(samples) + [row for _, row in negatives]) if negatives else None
        samples = [*samples, *(negative for negative, _ in negatives)]
        rows: dict[str, list[int]] = {}
        items: dict[str, list[Any]] = {}
        for row, sample in enumerate(samples):
            for modality, item in sample.values.items():
                rows.setdefault(modality, []).append(row)
                items.setdefault(modality, []).append(item)
        return cls(
            inputs={m: processors[m].collate(items[m]) for m in processors if m in items},
            rows={m: torch.tensor(rows[m]) for m in processors if m in rows},
            groups=torch.tensor([stable_hash(s.group) for s in samples], dtype=torch.int64),
            keys=tuple(s.key for s in samples),
            targets=_collate_targets(samples),
            negative_of=negative_of,
        )

    def to(self, device: torch.device | str, non_blocking: bool | None = None) -> Batch:
        """Move all tensors to a device.

        Args:
            non_blocking: do not wait for the copies; None: where they go to a GPU. Waiting for them would synchronise the
                GPU, and Lightning does so with all but plain tensors.
        """
        if non_blocking is None:
            non_blocking = torch.device(device).type == "cuda"
        return self._map(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Copy all tensors to page-locked memory, from which they reach a GPU faster."""
        return self._map(lambda t: t.pin_memory())

    def in_one_block(self) -> Batch:
        """Copy all tensors into one block of memory.

        Between processes, each block is sent as an open file, which takes time and counts towards the system's limit.
        """
        return _pack((self,))[0]

    def _map(self, move: Callable[[Tensor], Tensor]) -> Batch:
        return replace(
            self,
            inputs={m: {name: move(t) for name, t in inputs.items()} for m, inputs in self.inputs.items()},
            rows={m: move(t) for m, t in self.rows.items()},
            groups=move(self.groups),
            targets={name: move(t) for name, t in self.targets.items()},
            negative_of=None if self.negative_of is None else move(self.negative_of),
        )


@dataclass
class MicroBatches:
    """One batch, split into micro-batches that are embedded one after another; the objective sees one batch.

    Args:
        parts: the micro-batches, consecutive rows of the batch.

    Examples:
        >>> import torch
        >>> micro_batch = Batch({}, {}, groups=torch.zeros(3, dtype=torch.int64), keys=("a", "b", "c"))
        >>> len(MicroBatches((micro_batch, micro_batch)))
        6
    """

    parts: tuple[Batch, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of all rows."""
        return tuple(key for part in self.parts for key in part.keys)

    @property
    def rejects(self) -> tuple[Reject, ...]:
        """The rows of all micro-batches that cannot be read."""
        return tuple(reject for part in self.parts for reject in part.rejects)

    def in_one_block(self) -> MicroBatches:
        """Copy all tensors of all micro-batches into one block of memory, see ``Batch.in_one_block``."""
        return MicroBatches(_pack(self.parts))

    def to(self, device: torch.device | str, non_blocking: bool | None = None) -> MicroBatches:
        """Move all tensors to a device, see ``Batch.to``."""
        return MicroBatches(tuple(part.to(device, non_blocking) for part in self.parts))

    def pin_memory(self) -> MicroBatches:
        """Copy all tensors to page-locked memory."""
        return MicroBatches(tuple(part.pin_memory() for part in self.parts))


def _pack(parts: Sequence[Batch]) -> tuple[Batch, ...]:
    """Copy all tensors of several batches into one block of memory; strides are kept."""
    sizes: list[int] = []

    def measure(tensor: Tensor) -> Tensor:
        sizes.append(-(-tensor.nbytes // BUFFER_ALIGNMENT) * BUFFER_ALIGNMENT)
        return tensor

    for part in parts:
        part._map(measure)
    buffers = iter(torch.empty(sum(sizes), dtype=torch.uint8).split(sizes))

    def move(tensor: Tensor) -> Tensor:
        strides = torch.empty_like(tensor, device="meta").stride()  # the tensor's own, without gaps
        typed = next(buffers)[: tensor.nbytes].view(tensor.dtype)
        return typed.as_strided(tensor.shape, strides, typed.storage_offset()).copy_(tensor)

    return tuple(part._map(move) for part in parts)


def _collate_targets(samples: Sequence[Sample]) -> dict[str, Tensor]:
    targets: dict[str, Tensor] = {}
    for row, sample in enumerate(samples):
        for name, value in sample.targets.items():
            target = torch.as_tensor(value, dtype=torch.float32)
            column = targets.setdefault(name, torch.full((len(samples), *target.shape), torch.nan))
            if target.shape != column.shape[1:]:
                raise UsageError(
                    f"Target {name!r} of {sample.key!r} has shape {tuple(target.shape)}, an earlier sample's has "
                    f"{tuple(column.shape[1:])}; all must have the same shape."
                )
            column[row] = target
    return targets
