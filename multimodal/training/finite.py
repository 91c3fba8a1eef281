"""Whether weights are finite: what is saved is checked, as a loss can be finite while the step after it was not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from multimodal.core.errors import MultimodalError

MAX_NAMES_SHOWN = 3


def not_finite(tensors: Mapping[str, Any], parameters: set[str] | None = None) -> list[str]:
    """Return the names of the tensors with NaN, or with infinities, which only buffers (such as masks) may hold.

    Args:
        tensors: name -> tensor; other values are skipped.
        parameters: the names of those that are parameters; None: all.

    Examples:
        >>> mask = torch.tensor([0.0, -torch.inf])
        >>> not_finite({"weight": torch.ones(2), "mask": mask}, {"weight"}), not_finite({"weight": mask})
        ([], ['weight'])
    """

    def wrong(name: str, tensor: Tensor) -> bool:
        tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        if not tensor.is_floating_point():
            return False
        return bool((~tensor.isfinite() if parameters is None or name in parameters else tensor.isnan()).any())

    return [name for name, value in tensors.items() if isinstance(value, Tensor) and wrong(name, value)]


def weights_not_finite(module: nn.Module) -> list[str]:
    """Return the names of the module's parameters and saved buffers that are not finite."""
    with torch.no_grad():
        return not_finite(module.state_dict(), {name for name, _ in module.named_parameters(remove_duplicate=False)})


def listed(names: list[str]) -> str:
    """Return the first names, for an error: "a, b, c and 9 more"."""
    more = len(names) - MAX_NAMES_SHOWN
    return ", ".join(names[:MAX_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def last_saved(trainer: pl.Trainer) -> str:
    """Return a sentence for an error that says which checkpoint there is to resume from; empty if it is not known."""
    callbacks = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    return next((f" {callback.last_saved}" for callback in callbacks if hasattr(callback, "last_saved")), "")


def not_finite_error(trainer: pl.Trainer, names: list[str]) -> MultimodalError:
    """Return the error of weights that are not finite, before they are saved."""
    which = f" ({listed(names)})" if names else ""
    return MultimodalError(
        f"The weights after step {trainer.global_step} are not finite{which}; they are not saved.{last_saved(trainer)}"
        " Lower the learning rate, or set the trainer's gradient_clip_val."
    )
