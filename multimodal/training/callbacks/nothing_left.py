"""Says so when a run that is resumed has nothing left to train."""

from __future__ import annotations

import sys

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from multimodal.training.duration import end_of_training


class NothingLeft(Callback):
    """Prints that the run had reached its end before, if no step is left.

    Examples:
        >>> NothingLeft().state_key
        'NothingLeft'
    """

    def __init__(self) -> None:
        self._trained = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._trained = False

    def on_train_batch_start(self, trainer: pl.Trainer, *args: object) -> None:
        self._trained = True

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._trained or trainer.ckpt_path is None or not trainer.is_global_zero:
            return
        limits = end_of_training(trainer)
        print(
            f"Nothing is left to train: {trainer.ckpt_path} is of step {trainer.global_step:,}, where the run ends"
            f"{f' ({limits})' if limits else ''}. To train longer, raise this limit.",
            file=sys.stderr,
        )
