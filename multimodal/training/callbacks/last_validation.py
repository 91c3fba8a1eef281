"""Validates and saves what was trained last, if training ended without that."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from multimodal.training.callbacks.checkpoints import LastCheckpoint, is_validated


class ValidateLastStep(Callback):
    """Validates the last step of a training that a callback ended after its epoch, between two validations.

    Ends within an epoch are validated by ``LastCheckpoint``. This callback comes before those that replace the weights at
    the end of training, such as an average.

    Args:
        last: the callback that writes ``last.ckpt``.

    Examples:
        >>> from pathlib import Path
        >>> ValidateLastStep(LastCheckpoint(Path("runs/pairs/checkpoints"))).state_key
        'ValidateLastStep'
    """

    def __init__(self, last: LastCheckpoint) -> None:
        self.last = last

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.last.saved_step == trainer.global_step or trainer.fast_dev_run:  # pyright: ignore[reportAttributeAccessIssue]
            return
        if is_validated(trainer):
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.run()
            trainer.training = True
        self.last.save(trainer)
