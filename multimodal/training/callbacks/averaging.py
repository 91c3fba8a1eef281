"""Averaged weights: what is validated and exported is the moving average of the weights, not their last value."""

from __future__ import annotations

import warnings
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor

from multimodal.core.errors import UsageError
from multimodal.core.recording import Recorded


class AveragedWeights(WeightAveraging, Recorded):
    r"""Lightning's weight averaging with an exponential moving average that warms up.

    After update n the average is :math:`d_n a + (1 - d_n) w` with
    :math:`d_n = \min(\text{decay}, (1 + n) / (10 + n))`, as TensorFlow's ``ExponentialMovingAverage`` with a step count:
    a short run does not end with an average over its random beginning.

    Args:
        decay: of the average, in (0, 1); it averages over about ``1 / (1 - decay)`` steps.

    Examples:
        >>> AveragedWeights(decay=0.99).decay
        0.99
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 < decay < 1:
            raise UsageError(f"AveragedWeights: decay {decay} lies outside (0, 1).")

        def average(averaged: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
            if not averaged.is_floating_point():  # a count or a position: its mean has no meaning
                return current
            d = min(decay, (1 + int(updates)) / (10 + int(updates)))
            return averaged + (1 - d) * (current - averaged)  # bit for bit unchanged, where nothing changes

        super().__init__(avg_fn=average)
        self.decay = decay

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if isinstance(trainer.strategy, ModelParallelStrategy):
            raise UsageError("AveragedWeights cannot average encoders that are sharded over processes: use DDP.")
        with warnings.catch_warnings():  # our configure_model makes no layers
            warnings.filterwarnings("ignore", message=".*overrides the configure_model.*")
            super().setup(trainer, pl_module, stage)

    # The best model is written at the end of validation, after its epoch's end: the average must be in place until then.

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pass

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_epoch_end(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._average_model is not None:
            super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._average_model is not None:  # otherwise the checkpoint's averaged weights are loaded
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
