"""The callbacks of every training run, from the command line and from Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from lightning.pytorch.callbacks import Callback, LearningRateMonitor

from multimodal.core.run_folder import CHECKPOINTS
from multimodal.training.callbacks.best_model import Mode, SaveBestModel, SaveLastModel
from multimodal.training.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from multimodal.training.callbacks.free_memory import FreeMemory
from multimodal.training.callbacks.interrupt import StopOnSignal
from multimodal.training.callbacks.last_validation import ValidateLastStep
from multimodal.training.callbacks.monitors import CheckMonitors
from multimodal.training.callbacks.nothing_left import NothingLeft
from multimodal.training.callbacks.progress import Progress
from multimodal.training.callbacks.summary import ModelTable
from multimodal.training.callbacks.throughput import Throughput


class ValidationReport(Protocol):
    """A callback that measures the validation split and logs the metric that chooses the best model."""

    monitor: str
    mode: Mode


def default_callbacks(
    run: Path, report: ValidationReport, own: Sequence[Callback] = (), progress_bar: bool = True
) -> list[Callback]:
    """Return the callbacks of a run: model table, validation report, logs, best model, checkpoints, signals.

    Args:
        run: the run's folder.
        report: a callback that measures the validation split.
        own: the user's callbacks. They come after the callbacks that read the weights, as an average may replace the
            weights, and before the checkpoints.
        progress_bar: whether training shows one.
    """
    assert isinstance(report, Callback)
    monitor, mode = report.monitor, report.mode
    best = SaveBestModel(run, monitor, mode)
    last = LastCheckpoint(run / CHECKPOINTS)
    return [
        ModelTable(),
        ValidateLastStep(last),
        report,
        Throughput(),
        FreeMemory(),
        LearningRateMonitor("step"),
        best,
        *own,
        SaveLastModel(best),
        CheckMonitors(report),
        *([Progress()] if progress_bar else []),
        NothingLeft(),
        StopOnSignal(last),
        BestCheckpoint(run / CHECKPOINTS, best),
        last,
    ]
