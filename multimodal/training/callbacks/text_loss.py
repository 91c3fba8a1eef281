"""The validation loss of pre-training on texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from torch import Tensor

from multimodal.objectives.text_pretraining import TextLoss

MONITORED_METRIC = "val/loss"


class TextLossMonitor(Callback):
    """Logs and prints the mean validation loss of all predictions, and the means of its parts.

    Args:
        monitor: the metric by which the best model is chosen, the lowest value: ``val/loss`` or one of its parts.

    Examples:
        >>> TextLossMonitor().monitor, TextLossMonitor.mode
        ('val/loss', 'min')
    """

    mode: Literal["max", "min"] = "min"

    def __init__(self, monitor: str = MONITORED_METRIC) -> None:
        self.monitor = monitor
        self._losses: list[TextLoss] = []

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._losses = []

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: object
    ) -> None:
        self._losses.append(outputs)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        losses, self._losses = [loss for loss in self._losses if loss.count], []
        count = sum(loss.count for loss in losses)
        if not count:
            return

        def mean(of: Callable[[TextLoss], Tensor]) -> float:
            return sum(float(of(loss)) * loss.count for loss in losses) / count

        found = {"loss": mean(lambda loss: loss.total)}
        found |= {name: mean(lambda loss, name=name: loss.parts[name]) for name in losses[0].parts}
        for name, value in found.items():
            pl_module.log(f"val/{name}", value, sync_dist=True)
        if trainer.is_global_zero and not trainer.sanity_checking:
            shown = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
            Console(stderr=True).print(f"Validation at step {trainer.global_step}: {shown} ({count:,} predictions)")
