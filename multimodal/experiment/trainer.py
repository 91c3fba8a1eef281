"""Lightning's Trainer as every run here uses it, made from Python."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from multimodal.core.arguments import check_types
from multimodal.core.errors import UsageError, check_names
from multimodal.core.files import check_folder
from multimodal.evaluation.callback import RetrievalMonitor
from multimodal.experiment.quiet import QuietTrainer, quiet_libraries
from multimodal.experiment.save_objects import SaveObjects
from multimodal.experiment.trainer_settings import (
    TRAINER_ERRORS,
    explain_misconfiguration,
    run_loggers,
    trainer_defaults,
)
from multimodal.training.callbacks.defaults import ValidationReport, default_callbacks
from multimodal.training.training_module import OF_THE_OPTIMIZER


def check_trainer_settings(call: str, settings: Mapping[str, Any], own: Collection[str]) -> None:
    """Check the names and types of settings of Lightning's ``Trainer``.

    Args:
        call: the function that takes them, for the error.
        settings: name -> value.
        own: further arguments of this function, for suggestions.

    Raises:
        UsageError: a name is unknown, or a value has another type.
    """
    known = inspect.signature(pl.Trainer).parameters
    check_names(call, settings, [*known, *own], OF_THE_OPTIMIZER)
    # Lightning takes whole floats (max_steps=1e4) and None more widely than it declares
    checked = {name: value for name, value in settings.items() if not isinstance(value, float | None)}
    check_types(call, pl.Trainer.__init__, checked)


def make_trainer(
    run: str | Path = "run",
    *,
    report: ValidationReport | None = None,
    callbacks: Sequence[Callback] | Callback | None = None,
    **settings: Any,
) -> pl.Trainer:
    """Make a Lightning Trainer that writes a run's folder: checkpoints, logs, configuration and the best model.

    Args:
        run: the run's folder.
        report: the callback that measures validation and chooses the best model. None: retrieval between all pairs of
            modalities.
        callbacks: callbacks of your own.
        **settings: those of Lightning's ``Trainer`` (``max_steps``, ``precision``, ``devices``, ...).

    Returns:
        A trainer for ``trainer.fit(model, datamodule=data)``.

    Raises:
        UsageError: the settings do not fit this machine or one another, or the run's folder is a file.

    Examples:
        >>> make_trainer("runs/pairs", max_steps=500, accelerator="cpu").max_steps
        500
    """
    check_types("make_trainer", make_trainer, {"run": run})
    check_trainer_settings("make_trainer", settings | {"callbacks": callbacks}, {"run", "report"})
    check_folder(run)
    run = Path(run)
    own = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or ())
    bar = settings.get("enable_progress_bar") is not False
    standard = default_callbacks(run, report or RetrievalMonitor(), own, bar)
    chosen: dict[str, Any] = trainer_defaults() | {"logger": run_loggers(run)} | settings | {"default_root_dir": run}
    try:
        with quiet_libraries():
            return QuietTrainer(callbacks=[*standard, SaveObjects({"callbacks": own or None} | settings)], **chosen)
    except TRAINER_ERRORS as error:
        raise UsageError(explain_misconfiguration(str(error), settings.get("accelerator", "auto"))) from error
