"""Ctrl-C ends training with a checkpoint."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from multimodal.core.batch import Batch
from multimodal.core.errors import MultimodalError


class StopOnInterrupt(Callback):
    """Ends training at Ctrl-C after the current step, with a checkpoint to resume from; a second Ctrl-C ends it at once.

    Args:
        checkpoint: the file to write.

    Examples:
        >>> StopOnInterrupt(Path("runs/pairs/checkpoints/last.ckpt")).checkpoint.name
        'last.ckpt'
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self._stop_requested = self._saved = False
        self._previous: Any = None  # the handler before training; None: ours is not installed

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop_requested = self._saved = False
        self._previous = signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, number: int, frame: Any) -> None:
        self._stop_requested = True
        self._restore()

    def _restore(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if self._stop_requested:
            trainer.save_checkpoint(self.checkpoint)
            self._saved = True

    # After a batch, once its log is written, one of these three hooks runs next: training stops there.

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self._stop_when_saved(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop_when_saved(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop_when_saved(trainer)

    def _stop_when_saved(self, trainer: pl.Trainer) -> None:
        if self._saved:
            raise TrainingStopped(
                f"Training was stopped at step {trainer.global_step}, as you asked. Resume it with --ckpt_path last."
            )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._restore()


class TrainingStopped(MultimodalError):
    """The user ended the training before its end."""
