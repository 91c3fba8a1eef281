"""Gradient checkpointing: activations are computed again in the backward pass instead of kept (Chen et al. 2016)."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from multimodal.core.batch_norm import has_batch_norm, without_statistics
from multimodal.core.encoder import Encoder
from multimodal.core.layers import stacked_blocks


def recompute_activations(encoders: Iterable[Encoder]) -> None:
    """Let each block of the encoders' stacks keep only its inputs in training; results and gradients are the same."""
    for encoder in encoders:
        for block in stacked_blocks(encoder):
            block.forward = _CheckpointedForward(block)


class _CheckpointedForward:
    """Replaces a block's ``forward``."""

    def __init__(self, block: nn.Module) -> None:
        self.block, self.forward = block, block.forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not (torch.is_grad_enabled() and self.block.training):
            return self.forward(*args, **kwargs)
        contexts = {"context_fn": self._contexts} if has_batch_norm(self.block) else {}  # torch.compile takes none
        return checkpoint(self.forward, *args, use_reentrant=False, **contexts, **kwargs)

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), without_statistics(self.block)  # batch normalisation records a batch once
