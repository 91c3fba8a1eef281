"""What the processes of one training must agree on, so that none of them waits for the others for ever."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import distributed as dist

from multimodal.core.batch import Batch
from multimodal.core.errors import MultimodalError


def together(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches, as long as every rank has another one: the ranks of a stream end with the first that ends."""
    for batch in batches:
        if not _all_have(True):
            return
        yield batch
    _all_have(False)


def _all_have(another: bool) -> bool:
    if not _several():
        return another
    have = torch.tensor(int(another), device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(have, dist.ReduceOp.MIN)
    return bool(have)


def check_same(what: str, own: Any) -> None:
    """Raise a ``MultimodalError`` on every rank if ``own`` is not the same on all."""
    if not _several():
        return
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, own)
    for rank, other in enumerate(found):
        if other != found[0]:
            raise MultimodalError(
                f"Process {rank} has {other} {what}, process 0 has {found[0]}: all must read the same table."
            )


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
