"""Progress of training and of Lightning's other loops: a bar in a terminal, elsewhere a line every ten seconds."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from multimodal.core import progress
from multimodal.core.progress import duration, in_terminal
from multimodal.training.duration import planned_steps, time_limit

SHOWN = {"train/loss": "loss {:.4f}", "train/samples_per_second": "{:,.0f} samples/s"}
READ_EVERY = 0.5  # seconds: to read a metric is to wait for the GPU
REFRESHES = 4  # of the bar per second


class Progress(ProgressBar):
    """Shows the step, the loss, the speed and the time left of the whole training, on standard error.

    In a terminal it is a bar to the end of the training, with another one for a validation; elsewhere (logs, notebooks) a
    line every ten seconds. The time left is that of all steps with their validations, or of ``max_time`` if that ends
    sooner.

    Examples:
        >>> Progress().is_enabled
        True
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._bars: Bars | None = None  # in a terminal, while something runs
        self._tasks: dict[str, TaskID] = {}
        self._line_at = 0.0  # the next line's time, on the clock of time.monotonic
        self._read_at = -math.inf
        self._metrics = ""
        self._start, self._first_step = 0.0, 0
        self._batches = 0

    @property
    def is_enabled(self) -> bool:
        return self._enabled

    def disable(self) -> None:
        """Show nothing from now on; Lightning calls it, on all ranks but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show the progress again."""
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the bar."""
        print(*args, **kwargs)  # rich shows what is printed above its bars

    # -- the training

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start, self._first_step, self._read_at = time.monotonic(), trainer.global_step, -math.inf
        self._begin("Training")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._show("Training", *self._training(trainer))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._read_at = -math.inf
        self._end("Training", *self._training(trainer))

    def _training(self, trainer: pl.Trainer) -> tuple[float | None, str]:
        """Return which fraction is done, and the state as text."""
        step, steps = trainer.global_step, planned_steps(trainer) or math.inf
        elapsed, done = time.monotonic() - self._start, step - self._first_step
        left = elapsed / done * (steps - step) if done else math.inf
        timer = time_limit(trainer)
        if timer is not None and (remaining := timer.time_remaining()) is not None:
            left = min(left, max(remaining, 0.0))
        counted = f"step {step:,}/{steps:,}" if math.isfinite(steps) else f"step {step:,}"
        ends = math.isfinite(left)
        parts = [counted, self._read_metrics(trainer), f"{duration(left)} left" if ends else ""]
        spent = elapsed * step / done if done else 0.0  # a resumed training's earlier steps count as well
        return spent / (spent + left) if ends and spent else None, ", ".join(filter(None, parts))

    def _read_metrics(self, trainer: pl.Trainer) -> str:
        now = time.monotonic()
        if now - self._read_at >= READ_EVERY:
            self._read_at, found = now, trainer.callback_metrics
            self._metrics = ", ".join(text.format(float(found[name])) for name, text in SHOWN.items() if name in found)
        return self._metrics

    # -- the other loops

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin("Validation")

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        self._count(
            "Validation", trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        )

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end("Validation")

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin("Test")

    def on_test_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        self._count("Test", trainer.num_test_batches)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end("Test")

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin("Prediction")

    def on_predict_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        self._count("Prediction", trainer.num_predict_batches)

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._end("Prediction")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._stop()

    def _count(self, name: str, batches: list[int | float] | int | float) -> None:
        self._batches += 1
        total = sum(batches) if isinstance(batches, list) else batches
        known = math.isfinite(total) and total > 0
        text = f"batch {self._batches:,}/{total:,}" if known else f"batch {self._batches:,}"
        self._show(name, self._batches / total if known else None, text)

    # -- bars and lines

    def _begin(self, name: str) -> None:
        if not self._enabled:
            return
        self._batches = 0
        if not self._tasks:
            self._line_at = time.monotonic() + progress.INTERVAL
            console = Console(stderr=True)
            if in_terminal(console):
                columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}")
                self._bars = Bars(*columns, console=console, refresh_per_second=REFRESHES)
                self._bars.start()
        bars = self._bars
        self._tasks[name] = TaskID(-1) if bars is None else bars.add_task(name, total=None, state="")

    def _show(self, name: str, fraction: float | None, state: str) -> None:
        if name not in self._tasks:
            return
        if self._bars is not None:
            total = None if fraction is None else 1.0
            self._bars.update(self._tasks[name], total=total, completed=fraction or 0.0, state=state)
        elif time.monotonic() >= self._line_at:
            self._line_at = time.monotonic() + progress.INTERVAL
            print(f"{name}: {state}", file=sys.stderr, flush=True)

    def _end(self, name: str, fraction: float | None = None, state: str = "") -> None:
        """Finish a task; with a state, it is shown as the last one, and its bar is left in the terminal."""
        if state:
            self._line_at = -math.inf
            self._show(name, fraction, state)
        task = self._tasks.pop(name, None)
        if self._bars is not None and task is not None and not state:
            self._bars.remove_task(task)
        if not self._tasks:
            self._stop()

    def _stop(self) -> None:
        self._tasks.clear()
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
