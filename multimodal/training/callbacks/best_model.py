"""Saves the model of a run: the best of its validations, or the last weights if it had none."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from multimodal.core.run_folder import RUN_MODEL
from multimodal.training.finite import not_finite_error, weights_not_finite
from multimodal.training.fsdp import is_sharded, unsharded_copy
from multimodal.training.training_module import TrainingModule

Mode = Literal["max", "min"]


class SaveBestModel(Callback):
    """Writes the run's model folder whenever the monitored metric is the best so far.

    Args:
        folder: the run's folder.
        monitor: the metric's name.
        mode: whether the highest ("max") or the lowest ("min") is the best.

    Examples:
        >>> SaveBestModel(Path("runs/pairs"), "val/recall@1").mode
        'max'
    """

    def __init__(self, folder: Path, monitor: str, mode: Mode = "max") -> None:
        self.folder, self.monitor, self.mode = folder, monitor, mode
        self.best: float | None = None
        self.saved_step: int | None = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        value = trainer.callback_metrics.get(self.monitor)
        if trainer.sanity_checking or value is None or math.isnan(value):
            return
        if self.best is not None and (float(value) >= self.best if self.mode == "min" else float(value) <= self.best):
            return
        self.save(trainer, pl_module)
        self.best, self.saved_step = float(value), trainer.global_step

    def save(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the model folder with the current weights; all processes call it.

        Args:
            trainer: the trainer.
            pl_module: its ``TrainingModule``.

        Raises:
            MultimodalError: weights are not finite; the previous model is kept.
        """
        assert isinstance(pl_module, TrainingModule)
        embedder = unsharded_copy(pl_module.embedder) if is_sharded(pl_module.embedder) else pl_module.embedder
        if wrong := weights_not_finite(embedder):
            raise not_finite_error(trainer, wrong)
        if trainer.is_global_zero:
            embedder.predictors = pl_module.predictors()
            embedder.save_pretrained(self.folder / RUN_MODEL)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]


class SaveLastModel(Callback):
    """Writes the last weights at the end of training if no validation measured a model.

    It comes after callbacks that replace the weights at the end, such as an average.

    Args:
        best: the callback that writes the best model.

    Examples:
        >>> best = SaveBestModel(Path("runs/pairs"), "val/recall@1")
        >>> SaveLastModel(best).best is best
        True
    """

    def __init__(self, best: SaveBestModel) -> None:
        self.best = best

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.best.best is None:
            self.best.save(trainer, pl_module)
            if trainer.limit_val_batches and trainer.is_global_zero:
                print(
                    f"Note: no validation measured {self.best.monitor}, so the model has the last weights.",
                    file=sys.stderr,
                )
