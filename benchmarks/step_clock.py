"""The time of a training's steps, without those that warm up."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from device import Device, clock


class StepClock(pl.Callback):
    """Seconds from the end of one training step to the end of another.

    Args:
        device: what the model runs on.
        first: the step after whose end the time counts; the steps up to it warm up.
        last: the step at whose end it stops.
    """

    def __init__(self, device: Device, first: int, last: int) -> None:
        self._device: Device = device
        self._first, self._last = first, last
        self._start = self.seconds = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
        if trainer.global_step == self._first:
            self._start = clock(self._device)
        elif trainer.global_step == self._last:
            self.seconds = clock(self._device) - self._start
