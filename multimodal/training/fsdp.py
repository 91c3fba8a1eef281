"""Encoders whose weights, gradients and optimizer state are divided among the ranks (FSDP2).

1. ``trainer.strategy: lightning.pytorch.strategies.ModelParallelStrategy`` makes a mesh of devices; each trained encoder is
   one unit. Heads, objective and frozen encoders are complete on every rank; their gradients are averaged over the ranks.
2. An encoder's weights are gathered when it runs and its gradients scattered when they are known: both are
   collective calls, in the same order on all ranks. A rank without the modality in its batch joins by ``zero_through_weights``.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from multimodal.core.embedder import Embedder
from multimodal.core.encoder import Encoder


def shard(embedder: Embedder, mesh: Any) -> None:
    """Divide the trained encoders over a one-dimensional mesh of devices."""
    for modality in embedder.encoders:
        encoder = embedder.encoder(modality)
        if any(p.requires_grad for p in encoder.parameters()):
            fully_shard(encoder, mesh=mesh)
            object.__setattr__(encoder, "_zero", MethodType(_zero, encoder))
            register_fsdp_forward_method(encoder, "_zero")


def is_sharded(embedder: Embedder) -> bool:
    """Whether encoders of the embedder are divided among the ranks."""
    return any(isinstance(module, FSDPModule) for module in embedder.modules())


def zero_through_weights(encoder: Encoder) -> Tensor | None:
    """Return a scalar 0 with a gradient of 0 for the weights of a divided encoder; None if it is not divided."""
    return encoder._zero() if isinstance(encoder, FSDPModule) else None  # pyright: ignore[reportCallIssue]


def _zero(encoder: nn.Module) -> Tensor:
    return torch.stack([p.sum() for p in encoder.parameters() if p.requires_grad]).sum() * 0.0


def unsharded_copy(embedder: Embedder) -> Embedder:
    """Copy the embedder with all weights on this rank; a collective call, so every rank must make it."""
    weights = {n: t.full_tensor() if isinstance(t, DTensor) else t for n, t in embedder.state_dict().items()}
    encoders: dict[str, Encoder] = {}
    for modality in embedder.modalities:
        if modality in embedder.shared:
            encoders[modality] = encoders[embedder.shared[modality]]
            continue
        encoder = embedder.encoder(modality)
        cls = next(c for c in type(encoder).__mro__ if not issubclass(c, FSDPModule))
        encoders[modality] = cls(**encoder.settings)
        encoders[modality].processor.load_state(encoder.processor.state())
    copy = Embedder(encoders, embedder.dim, embedder.head_kinds, embedder.lora)
    copy.load_state_dict(weights)
    return copy


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the norm of all gradients, divided among ranks or not."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    kinds = [[g for g in gradients if isinstance(g, DTensor) == divided] for divided in (False, True)]
    norms = [nn.utils.get_total_norm(kind) for kind in kinds if kind]
    return torch.stack([norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]).norm()


def clip_gradients(parameters: Iterable[nn.Parameter], bound: float) -> None:
    """Scale all gradients so that their norm is at most ``bound``, as ``torch.nn.utils.clip_grad_norm_`` does."""
    parameters = list(parameters)
    factor = min(1.0, bound / (float(gradient_norm(parameters)) + 1e-6))
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(factor)
