"""The callbacks of every training run, from the command line and from Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint

from multimodal.core.run_folder import CHECKPOINTS, LAST
from multimodal.training.callbacks.best_model import Mode, SaveBestModel, SaveLastModel
from multimodal.training.callbacks.free_memory import FreeMemory
from multimodal.training.callbacks.interrupt import StopOnInterrupt
from multimodal.training.callbacks.last_validation import ValidateLastStep
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
    """Return the callbacks of a run: model table, validation report, logs, best model, checkpoints, Ctrl-C.

    Args:
        run: the run's folder.
        report: a callback that measures the validation split.
        own: the user's callbacks. They come after the callbacks that read the weights, as an average may replace the
            weights, and before the checkpoints.
        progress_bar: whether training shows one.
    """
    assert isinstance(report, Callback)
    monitor, mode = report.monitor, report.mode
    checkpoints, best = run / CHECKPOINTS, SaveBestModel(run, monitor, mode)
    return [
        ModelTable(),
        report,
        Throughput(),
        FreeMemory(),
        LearningRateMonitor("step"),
        best,
        *own,
        SaveLastModel(best),
        ValidateLastStep(),
        *([Progress()] if progress_bar else []),
        StopOnInterrupt(checkpoints / LAST),
        ModelCheckpoint(checkpoints, "best", monitor, mode=mode, enable_version_counter=False),
        ModelCheckpoint(checkpoints, "last", enable_version_counter=False),  # after each validation
    ]
