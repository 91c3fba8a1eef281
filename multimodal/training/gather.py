"""The batch of all processes, as each of them sees it.

Every rank embeds its own rows, gathers the vectors of all, and computes the loss of the whole batch. Only the rank's own
vectors carry a graph; their gradient is multiplied by the number of ranks, as the parameters' gradients are averaged over
the ranks afterwards (by DDP or FSDP). So loss and gradients are those of one process with the whole batch: with L the
loss of all rows, ``mean_r(W dL/dv_r dv_r/dp) = sum_r dL/dv_r dv_r/dp = dL/dp``. No gradient has to be sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from multimodal.core.embeddings import Embeddings


def gather(embeddings: Embeddings, modalities: Sequence[str], dim: int, dtype: torch.dtype) -> Embeddings:
    """The embeddings of all ranks, in the order of the ranks. Ranks may have different numbers of rows, or none.

    Args:
        embeddings: this rank's.
        modalities: all that any rank may have, in the same order everywhere.
        dim, dtype: of the vectors, for a rank that has none of a modality.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return embeddings
    rank, ranks = dist.get_rank(), dist.get_world_size()
    device = embeddings.groups.device
    sizes = _gathered(
        torch.tensor([len(embeddings.groups), *(len(embeddings.rows.get(m, ())) for m in modalities)], device=device)
    )
    counts = torch.stack(sizes).tolist()  # of each rank: its rows, then its vectors of each modality
    offsets = [sum(count[0] for count in counts[:r]) for r in range(ranks)]
    groups = torch.cat(_gathered_uneven(embeddings.groups, [count[0] for count in counts]))
    vectors: dict[str, Tensor] = {}
    rows: dict[str, Tensor] = {}
    for number, modality in enumerate(modalities, start=1):
        lengths = [count[number] for count in counts]
        if not any(lengths):
            continue
        own = embeddings.vectors.get(modality)
        if own is None:
            own = torch.zeros(0, dim, dtype=dtype, device=device)
        everyone = _gathered_uneven(own.detach(), lengths)
        everyone[rank] = _ScaledGradient.apply(own, float(ranks))
        vectors[modality] = torch.cat(everyone)
        own_rows = embeddings.rows.get(modality, torch.zeros(0, dtype=torch.int64, device=device))
        of_ranks = _gathered_uneven(own_rows, lengths)
        rows[modality] = torch.cat([r + offset for r, offset in zip(of_ranks, offsets, strict=True)])
    keys: list[Any] = [None] * ranks
    dist.all_gather_object(keys, embeddings.keys)
    return Embeddings(vectors, rows, groups, tuple(key for of_rank in keys for key in of_rank))


def _gathered(tensor: Tensor) -> list[Tensor]:
    """The tensors of all ranks, of one shape."""
    found = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(found, tensor.contiguous())
    return found


def _gathered_uneven(tensor: Tensor, lengths: Sequence[int]) -> list[Tensor]:
    """The tensors of all ranks, of ``lengths`` rows."""
    longest = max(lengths)
    padded = torch.cat([tensor, tensor.new_zeros(longest - len(tensor), *tensor.shape[1:])])
    return [found[:length] for found, length in zip(_gathered(padded), lengths, strict=True)]


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
    """Replace the gradients by their means over the ranks, one that no rank has by none.

    For steps of several backward passes, in which DDP does not do it.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    trained = [p for p in parameters if p.requires_grad]
    has = torch.tensor([float(p.grad is not None) for p in trained], device=trained[0].device)
    dist.all_reduce(has)
    for parameter, count in zip(trained, has.tolist(), strict=True):
        if count:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()
