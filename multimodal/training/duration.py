"""How long a training is, for what changes over it: learning rates and weights of losses."""

from __future__ import annotations

import math
from datetime import timedelta

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Timer

from multimodal.core.errors import UsageError

UNKNOWN_LENGTH = 1_000_000  # steps, before the first step of a training that only max_time limits


def planned_steps(trainer: pl.Trainer) -> int | None:
    """Return the number of steps that ``max_steps`` and ``max_epochs`` allow; None: none, or unknown."""
    steps = trainer.max_steps if trainer.max_epochs in (None, -1) else trainer.estimated_stepping_batches
    return int(steps) if 0 < steps < math.inf else None


def total_steps(trainer: pl.Trainer) -> int | None:
    """Return the number of steps of the training; None: it is not known.

    If ``max_time`` alone limits it, the number is extrapolated from the time that the steps have taken so far, the same on
    all processes, so that the fraction of the steps that is done is the fraction of the time.
    """
    steps, timer = planned_steps(trainer), time_limit(trainer)
    return _extrapolated_steps(trainer, timer) if steps is None and timer is not None else steps


def time_limit(trainer: pl.Trainer) -> Timer | None:
    """Return the callback that ends the training after ``max_time``, if there is one."""
    timers = [c for c in trainer.callbacks if isinstance(c, Timer)]  # pyright: ignore[reportAttributeAccessIssue]
    return next((timer for timer in timers if timer.time_remaining() is not None), None)


def _extrapolated_steps(trainer: pl.Trainer, timer: Timer) -> int:
    remaining, elapsed = timer.time_remaining(), timer.time_elapsed()
    assert remaining is not None
    fraction = min(elapsed / max(elapsed + remaining, 1e-9), 1.0)
    if trainer.world_size > 1 and timer.start_time() is not None:  # clocks differ
        fraction = trainer.strategy.broadcast(fraction)
    step = trainer.global_step
    return max(round(step / fraction), step + 1) if step and fraction else UNKNOWN_LENGTH


def scheduled_steps(trainer: pl.Trainer) -> int:
    """Return the number of steps of the training, for a schedule that needs it.

    Raises:
        UsageError: it is not known.
    """
    steps = total_steps(trainer)
    if steps is None:
        raise UsageError(
            "The schedule needs the length of the training: set max_steps, max_time, or max_epochs if the table is not"
            " streamed; or set the schedule to multimodal.training.Constant."
        )
    return steps


def fraction_done(trainer: pl.Trainer) -> float:
    """Return the fraction of the training that is done, in [0, 1]; 0 if its length is not known."""
    steps = total_steps(trainer)
    return 0.0 if steps is None else min(trainer.global_step / steps, 1.0)


def end_of_training(trainer: pl.Trainer) -> str:
    """Return the limits of a training in words: "max_steps 500, max_time 1:00:00"."""
    timer = time_limit(trainer)
    limits = {
        "max_steps": None if trainer.max_steps == -1 else f"{trainer.max_steps:,}",
        "max_epochs": None if trainer.max_epochs in (None, -1) else f"{trainer.max_epochs:,}",
        "max_time": None
        if timer is None
        else str(timedelta(seconds=round(timer.time_elapsed() + (timer.time_remaining() or 0)))),
    }
    return ", ".join(f"{name} {limit}" for name, limit in limits.items() if limit is not None)
