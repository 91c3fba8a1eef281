"""Work that the processes (ranks) of one training share: collectives, and which rank computes what."""

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
    """The processes that divide the rows among them; by default this one alone."""

    rank: int = 0
    count: int = 1

    def share(self, n: int) -> slice:
        """This rank's rows of n."""
        return slice(n * self.rank // self.count, n * (self.rank + 1) // self.count)

    def logsumexp(self, partial: Tensor) -> Tensor:
        """The logarithms of sums of which every rank has a part; -inf where a rank has none of it."""
        if self.count == 1:
            return partial
        found = [torch.empty_like(partial) for _ in range(self.count)]
        dist.all_gather(found, partial.contiguous())
        return torch.stack(found).logsumexp(0)

    def sum_(self, *tensors: Tensor) -> None:
        """Replace contiguous tensors by their sums over the ranks."""
        if self.count > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)


SINGLE_PROCESS = RowShares()
_RANKS: ContextVar[RowShares] = ContextVar("_RANKS", default=SINGLE_PROCESS)


@contextmanager
def split_over_ranks() -> Iterator[None]:
    """Within, the ranks divide the tiles of every loss: all of them must compute the same losses of the same vectors."""
    several = dist.is_available() and dist.is_initialized()
    token = _RANKS.set(RowShares(dist.get_rank(), dist.get_world_size()) if several else SINGLE_PROCESS)
    try:
        yield
    finally:
        _RANKS.reset(token)


def ranks() -> RowShares:
    """Those that divide the work at this place of the program."""
    return _RANKS.get()


def until_any_rank_ends(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches, as long as every rank has another one: the ranks of a stream end with the first that ends."""
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


def check_equal_over_ranks(what: str, own: Any) -> None:
    """Raise a ``MultimodalError`` on every rank if ``own`` is not the same on all."""
    if not is_distributed():
        return
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, own)
    for rank, other in enumerate(found):
        if other != found[0]:
            raise MultimodalError(
                f"Process {rank} has {other} {what}, process 0 has {found[0]}: all must read the same table."
            )


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


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
