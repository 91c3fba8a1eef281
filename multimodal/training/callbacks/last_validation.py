"""Validates the last step of a training, wherever in an epoch it is."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback


class ValidateLastStep(Callback):
    """Makes Lightning validate after the last step too, if ``max_steps`` or ``max_epochs`` end between two validations.

    The best model and the checkpoints then are those of any other validation. Nothing is validated twice.

    Examples:
        >>> ValidateLastStep().state_key
        'ValidateLastStep'
    """

    def __init__(self) -> None:
        self._every_n_epochs: int | None = None  # the trainer's setting, while it is replaced

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if not _is_last_step(trainer):
            return
        trainer.should_stop = True  # it stops anyway; Lightning validates where it is asked to stop
        every = trainer.check_val_every_n_epoch
        if every is not None and (trainer.current_epoch + 1) % every:
            self._every_n_epochs, trainer.check_val_every_n_epoch = every, None  # validate in any epoch

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._every_n_epochs is not None:
            trainer.check_val_every_n_epoch, self._every_n_epochs = self._every_n_epochs, None


def _is_last_step(trainer: pl.Trainer) -> bool:
    if trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps:
        return True
    epochs = trainer.max_epochs
    return trainer.is_last_batch and epochs not in (None, -1) and trainer.current_epoch + 1 >= epochs
