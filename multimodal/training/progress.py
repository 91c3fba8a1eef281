"""The progress bar of training: how many of the steps are done."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import RichProgressBar

from multimodal.training.base import planned_steps


class Progress(RichProgressBar):
    """Lightning's bar of the epoch at hand, with the step's number in the whole training.

    Most trainings here are planned in steps, and have no last epoch to show.
    """

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return {"step": f"{trainer.global_step}/{planned_steps(trainer)}"} | metrics

    def _get_train_description(self, current_epoch: int) -> str:
        return f"Epoch {current_epoch}".ljust(len(self.validation_description))
