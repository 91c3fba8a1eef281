"""The progress bar of training, with the number of steps that are done."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import RichProgressBar

from multimodal.training.training_module import total_steps

SHOWN = ("train/loss", "train/samples_per_second")
INTERVAL = 0.5  # seconds


class Progress(RichProgressBar):
    """Lightning's bar of the current epoch, with the step's number in the whole training, the loss and the speed.

    Most trainings are planned in steps and have no last epoch to show. The loss is read twice a second: to read it is to wait
    for the GPU, and Lightning reads what is logged with ``prog_bar=True`` after every step, with or without a bar.

    Examples:
        >>> Progress().is_enabled
        True
    """

    _read_at = -INTERVAL  # on the clock of time.monotonic

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        now = time.monotonic()
        if now - self._read_at >= INTERVAL:
            self._read_at, found = now, trainer.callback_metrics
            self._shown = {name: float(found[name]) for name in SHOWN if name in found}
        metrics |= self._shown
        return {"step": f"{trainer.global_step}/{total_steps(trainer)}"} | metrics

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._read_at = -INTERVAL  # the bar that is left shows the last step
        super().on_train_epoch_end(trainer, pl_module)

    def _initialize_train_progress_bar_id(self) -> None:
        """Begin the bar of an epoch that is resumed in the middle; Lightning's own is as long as the remaining steps."""
        super()._initialize_train_progress_bar_id()
        trainer, bar = self.trainer, self.train_progress_bar_id
        if self.progress is not None and bar is not None and trainer.max_steps > 0:
            done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
            total = min(trainer.num_training_batches, done + trainer.max_steps - trainer.global_step)
            self.progress.update(bar, total=total)

    def _get_train_description(self, current_epoch: int) -> str:
        return f"Epoch {current_epoch}".ljust(len(self.validation_description))
