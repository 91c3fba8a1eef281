"""Batch normalization: single values, and passes that leave the running statistics unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def use_running_stats_for_single_values(encoder: nn.Module) -> None:
    """Let batch normalisation of one value per channel use the running statistics, in training too.

    One value has no variance, so torch raises an error: for a batch of one molecule, or one picture that the network has
    reduced to one pixel. The running statistics are not changed. Call it when the encoder is built; a second call
    changes nothing.
    """
    for module in encoder.modules():
        if isinstance(module, _BatchNorm) and _use_running_stats not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_use_running_stats)


def _use_running_stats(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    if not norm.training or inputs[0].numel() != inputs[0].shape[1]:
        return
    norm.training = False

    def back_to_training(norm: nn.Module, *_: Any) -> None:
        norm.training = True
        once.remove()

    once = norm.register_forward_hook(back_to_training, always_call=True)


@contextmanager
def without_statistics(model: nn.Module) -> Iterator[None]:
    """Normalise batches as in training, but leave the running statistics unchanged."""
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    tracked = [None if layer.num_batches_tracked is None else layer.num_batches_tracked.clone() for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum, number in zip(layers, momenta, tracked, strict=True):
            layer.momentum = momentum
            if layer.num_batches_tracked is not None and number is not None:
                layer.num_batches_tracked.copy_(number)


def has_batch_norm(module: nn.Module) -> bool:
    """Whether a module contains batch normalisation, which records statistics of each batch."""
    return any(isinstance(part, _BatchNorm) for part in module.modules())
