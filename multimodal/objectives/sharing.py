"""The work on all scores, divided among the ranks.

1. Every rank has the vectors of all (``training.gather``) and computes the same loss, but the tiles of its own share of the
   rows alone, against the columns of every rank: of n x m scores each of W ranks computes n m / W, forward and backward.
2. What the ranks found is put together by collective calls, which pass partial results around in a ring: the log-sum-exps of
   the columns, the sums, the gradients. Those are ``O((n + m) d)``, as the vectors are; no score is ever sent.
3. Afterwards every rank has the loss and the gradients of the whole batch, as if it had computed all tiles. Which rank a row
   came from, how many it has, and what it lacks do not matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist


@dataclass(frozen=True)
class Ranks:
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


ALONE = Ranks()
_RANKS: ContextVar[Ranks] = ContextVar("_RANKS", default=ALONE)


@contextmanager
def divided() -> Iterator[None]:
    """Within, the ranks divide the tiles of every loss: all of them must compute the same losses of the same vectors."""
    several = dist.is_available() and dist.is_initialized()
    token = _RANKS.set(Ranks(dist.get_rank(), dist.get_world_size()) if several else ALONE)
    try:
        yield
    finally:
        _RANKS.reset(token)


def ranks() -> Ranks:
    """Those that divide the work at this place of the program."""
    return _RANKS.get()
