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
    """One row of data: its name, a value for each modality it has, and the group it shares with its positives.

    ``targets``: what is known of it, a number (a class is its number) or a list of numbers by name. ``negatives``:
    samples that are hard to tell from it and do not match it, each of its own group.
    """

    key: str
    values: Mapping[str, Any]
    group: str
    targets: Mapping[str, Any] = field(default_factory=dict)
    negatives: tuple[Sample, ...] = ()


def stable_hash(name: str) -> int:
    """A number in [0, 2^63) for a name, equal in every process (the first 63 bits of its BLAKE2b)."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") >> 1


@dataclass  # not frozen: Lightning cannot change the precision of what is
class Batch:
    """n samples, for each modality the collated inputs of the rows that have it.

    Shapes: ``rows[m]`` is ``(n_m,)`` int64, ascending row numbers in [0, n); ``inputs[m]`` describes those n_m rows;
    ``groups`` is ``(n,)`` int64; ``keys`` has n strings. A modality that no row has is absent from both dicts.
    ``rejects`` are the rows that should have been here but cannot be read.

    ``targets[name]`` is ``(n,)`` or ``(n, c)`` float32, NaN where a row has none; classes are whole numbers. A target
    that no row has is absent. ``negative_of`` is ``(n,)`` int64: the row that this one is a hard negative of, -1 if of
    none. Negatives are rows like others: they stand after the samples, and as nothing matches them, objectives see
    them as candidates that are no positives. None: there are no such rows.
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
        """A batch of samples whose values are already *items* of the processors, then of their negatives.

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

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        return self._map(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        return self._map(lambda t: t.pin_memory())

    def in_one_block(self) -> Batch:
        """The same, with all tensors in one block of memory.

        A process hands each block to another one as an open file, which takes time, and of which a system allows so many.
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
    """One batch in parts that are embedded one after another; the objective sees them as one."""

    parts: tuple[Batch, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key for part in self.parts for key in part.keys)

    @property
    def rejects(self) -> tuple[Reject, ...]:
        return tuple(reject for part in self.parts for reject in part.rejects)

    def in_one_block(self) -> MicroBatches:
        return MicroBatches(_pack(self.parts))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> MicroBatches:
        return MicroBatches(tuple(part.to(device, non_blocking) for part in self.parts))

    def pin_memory(self) -> MicroBatches:
        return MicroBatches(tuple(part.pin_memory() for part in self.parts))


def _pack(parts: Sequence[Batch]) -> tuple[Batch, ...]:
    sizes: list[int] = []

    def measure(tensor: Tensor) -> Tensor:
        sizes.append(-(-tensor.nbytes // BUFFER_ALIGNMENT) * BUFFER_ALIGNMENT)
        return tensor

    for part in parts:
        part._map(measure)
    pieces = iter(torch.empty(sum(sizes), dtype=torch.uint8).split(sizes))

    def move(tensor: Tensor) -> Tensor:
        strides = torch.empty_like(tensor, device="meta").stride()  # as they are, where there are no gaps
        typed = next(pieces)[: tensor.nbytes].view(tensor.dtype)
        return typed.as_strided(tensor.shape, strides, typed.storage_offset()).copy_(tensor)

    return tuple(part._map(move) for part in parts)


def _collate_targets(samples: Sequence[Sample]) -> dict[str, Tensor]:
    targets: dict[str, Tensor] = {}
    for row, sample in enumerate(samples):
        for name, value in sample.targets.items():
            known = torch.as_tensor(value, dtype=torch.float32)
            column = targets.setdefault(name, torch.full((len(samples), *known.shape), torch.nan))
            if known.shape != column.shape[1:]:
                raise UsageError(
                    f"Target {name!r} of {sample.key!r} has shape {tuple(known.shape)}, that of an earlier sample "
                    f"{tuple(column.shape[1:])}; every sample needs as many numbers."
                )
            column[row] = known
    return targets
