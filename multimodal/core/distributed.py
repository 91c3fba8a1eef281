"""Several processes (ranks) in one training: collective calls, and which rank computes what.

1. Every rank has the vectors of all ranks and computes the same loss, but only the tiles of its own share of the rows, with the
   columns of every rank: of n x m scores, each of W ranks computes n m / W, forward and backward.
2. Collective calls combine the partial results: log-sum-exps of the columns, sums, gradients. Their size is
   ``O((n + m) d)``, that of the vectors; scores are never sent.
3. Afterwards every rank has the loss and the gradients of the full batch, as if it had computed all tiles, regardless of
   how many rows it has and which modalities are missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from multimodal.core.batch import Batch
from multimodal.core.errors import MultimodalError


@dataclass(frozen=True)
class RowShares:
    """Which rows each process (rank) computes; by default one process computes all.

    Args:
        rank: the number of this process.
        count: the number of processes.

    Examples:
        >>> [RowShares(rank, 3).share(10) for rank in range(3)]
        [slice(0, 3, None), slice(3, 6, None), slice(6, 10, None)]
    """

    rank: int = 0
    count: int = 1

    def share(self, n: int) -> slice:
        """Return this rank's rows of n."""
        return slice(n * self.rank // self.count, n * (self.rank + 1) // self.count)

    def logsumexp(self, partial: Tensor) -> Tensor:
        """Combine the log-sum-exps of all ranks; a rank without terms passes -inf."""
        if self.count == 1:
            return partial
        gathered = [torch.empty_like(partial) for _ in range(self.count)]
        dist.all_gather(gathered, partial.contiguous())
        return torch.stack(gathered).logsumexp(0)

    def sum_(self, *tensors: Tensor) -> None:
        """Replace contiguous tensors by their sums over the ranks."""
        if self.count > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)


SINGLE_PROCESS = RowShares()
_RANKS: ContextVar[RowShares] = ContextVar("_RANKS", default=SINGLE_PROCESS)


@contextmanager
def split_over_ranks() -> Iterator[None]:
    """Divide the tiles of every loss in the block over the ranks; all must compute the same losses of the same vectors."""
    initialized = dist.is_available() and dist.is_initialized()
    token = _RANKS.set(RowShares(dist.get_rank(), dist.get_world_size()) if initialized else SINGLE_PROCESS)
    try:
        yield
    finally:
        _RANKS.reset(token)


def ranks() -> RowShares:
    """Return the shares in effect, set by the innermost ``split_over_ranks``."""
    return _RANKS.get()


def until_any_rank_ends(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yield batches until any rank has no more, so that no rank waits for another forever."""
    for batch in batches:
        if not _all_ranks_have_batch(True):
            return
        yield batch
    _all_ranks_have_batch(False)


def _all_ranks_have_batch(another: bool) -> bool:
    if not is_distributed():
        return another
    have = torch.tensor(int(another), device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(have, dist.ReduceOp.MIN)
    return bool(have)


def check_equal_over_ranks(description: str, local: Any) -> None:
    """Check that a value is the same on every rank.

    Args:
        description: names the value in the error.
        local: the value on this rank; it is pickled between the processes.

    Raises:
        MultimodalError: on every rank, if the value differs between ranks.
    """
    if not is_distributed():
        return
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, local)
    for rank, other in enumerate(values):
        if other != values[0]:
            raise MultimodalError(
                f"Process {rank} has {other} {description}, process 0 has {values[0]}: all must read the same table."
            )


def is_distributed() -> bool:
    """Whether several processes train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def gather_equal(tensor: Tensor) -> list[Tensor]:
    """Gather a tensor of the same shape from each rank, in the order of the ranks."""
    gathered = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, tensor.contiguous())
    return gathered


def gather_uneven(tensor: Tensor, lengths: Sequence[int]) -> list[Tensor]:
    """Gather tensors with different numbers of rows from all ranks, in the order of the ranks.

    Args:
        tensor: ``(lengths[rank], ...)`` on this rank; only the number of rows may differ between ranks.
        lengths: the number of rows on each rank.
    """
    longest = max(lengths)
    padded = torch.cat([tensor, tensor.new_zeros(longest - len(tensor), *tensor.shape[1:])])
    return [gathered[:length] for gathered, length in zip(gather_equal(padded), lengths, strict=True)]
