"""Metrics that callbacks wait for and nothing logs are an error at the start, not hours later."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from multimodal.core.errors import UsageError, suggest, suggest_near

LOGGED_BY_STEPS = ("lightning.", "multimodal.")  # packages whose callbacks log nothing at the end of an epoch


class CheckMonitors(Callback):
    """Checks the metrics that callbacks monitor (``EarlyStopping``, ``ModelCheckpoint``) before the first step.

    A metric of validation must be logged by the validation before the training (Lightning's sanity check, which is on by
    default and left out when a run is resumed), or be one of the report's. A metric of training must be logged by the first
    step; with callbacks of the user's own, which may log it at the end of an epoch, it is only a warning.

    Args:
        report: the callback that measures validation; it may name its metrics by a method ``metrics(module)``.

    Examples:
        >>> CheckMonitors(Callback()).state_key
        'CheckMonitors'
    """

    def __init__(self, report: Callback) -> None:
        self.report = report
        self._checked = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._checked = False

    def on_sanity_check_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = getattr(self.report, "metrics", None)
        known = {*trainer.callback_metrics, *(metrics(pl_module) if metrics is not None else ())}
        for callback, monitor in _monitored(trainer):
            if monitor.startswith("val/") and monitor not in known:
                raise UsageError(
                    f"{callback} monitors {monitor!r}, which nothing logs.{suggest_near(monitor, sorted(known))}"
                )

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        if self._checked:
            return
        self._checked, known = True, trainer.callback_metrics
        for callback, monitor in _monitored(trainer):
            if monitor.startswith("train/") and monitor not in known:
                found = suggest(monitor, [name for name in known if name.startswith("train/")])
                message = f"{callback} monitors {monitor!r}, which the first step did not log.{found}"
                if all(type(c).__module__.startswith(LOGGED_BY_STEPS) for c in trainer.callbacks):  # pyright: ignore
                    raise UsageError(message)
                if trainer.is_global_zero:
                    print(f"Warning: {message}", file=sys.stderr)


def _monitored(trainer: pl.Trainer) -> Iterator[tuple[str, str]]:
    """Yield callbacks' names and the metrics that they monitor."""
    for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(monitor := getattr(callback, "monitor", None), str):
            yield type(callback).__name__, monitor
