"""Samples per second while training."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from multimodal.core.batch import Batch
from multimodal.training.training_module import log_interval


class Throughput(Callback):
    """Logs ``train/samples_per_second`` since the last log, without the time of validation.

    Examples:
        >>> Throughput().state_key
        'Throughput'
    """

    def __init__(self) -> None:
        self._samples, self._seconds, self._last_time = 0, 0.0, 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last_time = time.perf_counter()  # an epoch that is resumed in the middle does not start

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last_time = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        self._samples += len(batch) * trainer.world_size
        self._seconds += now - self._last_time
        self._last_time = now
        if trainer.global_step % log_interval(trainer) == 0:
            pl_module.log("train/samples_per_second", self._samples / self._seconds)
            self._samples, self._seconds = 0, 0.0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last_time = time.perf_counter()
