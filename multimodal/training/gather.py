"""Gather the batch of all processes on each of them.

Every rank embeds its own rows, gathers the vectors of all, and computes the loss of the whole batch; the ranks divide the
tiles of its scores among them (``core.distributed``). Only the rank's own
vectors carry a graph; their gradient is multiplied by the number of ranks, as the parameters' gradients are averaged over
the ranks afterwards (by DDP or FSDP). So loss and gradients are those of one process with the whole batch: with L the
loss of all rows, ``mean_r(W dL/dv_r dv_r/dp) = sum_r dL/dv_r dv_r/dp = dL/dp``. No gradient has to be sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.tensor import DTensor

from multimodal.core.batch import Batch, MicroBatches
from multimodal.core.distributed import gather_uneven
from multimodal.core.embeddings import Embeddings


def gather_embeddings(embeddings: Embeddings, modalities: Sequence[str], dim: int, dtype: torch.dtype) -> Embeddings:
    """Gather the embeddings of all ranks, in the order of the ranks, without keys.

    Ranks may have different numbers of rows, or none.

    Args:
        embeddings: this rank's.
        modalities: all that any rank may have, in the same order everywhere.
        dim, dtype: of the vectors, for a rank that has none of a modality.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return embeddings
    rank, ranks = dist.get_rank(), dist.get_world_size()
    sizes: list[Any] = [None] * ranks
    dist.all_gather_object(sizes, _Sizes.of(embeddings))
    rows = [size.rows for size in sizes]
    offsets = [sum(rows[:r]) for r in range(ranks)]
    device = embeddings.groups.device

    def of_all(own: Tensor | None, lengths: list[int], like: Tensor) -> list[Tensor]:
        return gather_uneven(like if own is None else own, lengths)

    vectors: dict[str, Tensor] = {}
    numbers: dict[str, Tensor] = {}
    for modality in modalities:
        lengths = [size.vectors.get(modality, 0) for size in sizes]
        if any(lengths):
            own = embeddings.vectors.get(modality)
            if own is None:  # every rank's graph has the same nodes: the ranks meet in the backward pass
                own = torch.zeros(0, dim, dtype=dtype, device=device, requires_grad=torch.is_grad_enabled())
            everyone = of_all(own.detach(), lengths, own)
            everyone[rank] = _ScaledGradient.apply(own, float(ranks))
            vectors[modality] = torch.cat(everyone)
            of_ranks = of_all(embeddings.rows.get(modality), lengths, embeddings.groups.new_zeros(0))
            numbers[modality] = torch.cat([r + offset for r, offset in zip(of_ranks, offsets, strict=True)])
    targets: dict[str, Tensor] = {}
    for name, shape in sorted({item for size in sizes for item in size.targets.items()}):
        none = torch.full((len(embeddings.groups), *shape), torch.nan, device=device)
        targets[name] = torch.cat(of_all(embeddings.targets.get(name), rows, none))
    negative_of = None
    if any(size.negatives for size in sizes):
        none = torch.full_like(embeddings.groups, -1)
        of_ranks = of_all(embeddings.negative_of, rows, none)
        negative_of = torch.cat([r + offset * (r >= 0) for r, offset in zip(of_ranks, offsets, strict=True)])
    groups = torch.cat(gather_uneven(embeddings.groups, rows))
    return Embeddings(vectors, numbers, groups, targets=targets, negative_of=negative_of)


@dataclass(frozen=True)
class _Sizes:
    """What a rank has: numbers of rows and of vectors of each modality, trailing shapes of targets, hard negatives."""

    rows: int
    vectors: dict[str, int]
    targets: dict[str, tuple[int, ...]]
    negatives: bool

    @classmethod
    def of(cls, embeddings: Embeddings) -> _Sizes:
        return cls(
            len(embeddings.groups),
            {m: len(v) for m, v in embeddings.vectors.items()},
            {name: tuple(t.shape[1:]) for name, t in embeddings.targets.items()},
            embeddings.negative_of is not None,
        )


class _ScaledGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return tensor.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace the gradients by their means over the ranks; a gradient that no rank has is left out.

    For steps of several backward passes, in which DDP does not do it, and for parameters that FSDP does not divide.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    trained = [p for p in parameters if p.requires_grad and not isinstance(p, DTensor)]
    has = torch.tensor([float(p.grad is not None) for p in trained], device=trained[0].device)
    dist.all_reduce(has)
    for parameter, count in zip(trained, has.tolist(), strict=True):
        if count:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()


def pad_to_most_parts(batch: MicroBatches) -> MicroBatches:
    """Append empty micro-batches until every rank has the same number, as FSDP's collective calls require."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return batch
    counts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(counts, len(batch.parts))
    empty = Batch(
        {}, {}, torch.zeros(0, dtype=torch.int64, device=batch.parts[0].groups.device if batch.parts else None)
    )
    return MicroBatches((*batch.parts, *[empty] * (max(counts) - len(batch.parts))))
