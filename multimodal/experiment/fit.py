"""Training from Python: three objects and a call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from multimodal.core.arguments import check_types, describe_value
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.hardware import share_cores
from multimodal.core.run_folder import CHECKPOINTS
from multimodal.data.datamodule import DataModule
from multimodal.evaluation.callback import RetrievalMonitor
from multimodal.experiment.checkpoints import check_readable
from multimodal.experiment.quiet import quiet_libraries
from multimodal.experiment.run_lock import run_lock
from multimodal.experiment.trainer import check_trainer_settings, make_trainer
from multimodal.experiment.unused_settings import warn_of_unused_settings
from multimodal.training.callbacks.text_loss import TextLossMonitor
from multimodal.training.checkpoint_io import checkpoint_to_resume
from multimodal.training.text_pretraining import TextPretrainingModule
from multimodal.training.training_module import TrainingModule


def fit(
    model: TrainingModule,
    data: DataModule,
    run: str | Path = "run",
    *,
    resume: bool = False,
    monitor: str | None = None,
    **trainer: Any,
) -> Embedder:
    """Train a model, as ``multimodal fit`` does, and return the best one of its validations.

    The run's folder gets the configuration, checkpoints, logs and the best model. Torch is limited to all cores but one,
    unless ``OMP_NUM_THREADS`` is set. For a trainer of your own, see ``make_trainer``.

    Args:
        model: an ``EmbedderModule``, or a ``TextPretrainingModule``.
        data: its data.
        run: the run's folder.
        resume: continue from the run's last checkpoint, if there is one.
        monitor: the metric of the validation by which the best model is chosen, like "val/text->image/mrr". None:
            "val/recall@1", the mean of all pairs; of a ``TextPretrainingModule``, "val/loss".
        **trainer: settings of Lightning's ``Trainer``: ``max_steps``, ``max_epochs``, ``precision``, ``callbacks``, ...

    Returns:
        The model of the best validation, in evaluation mode.

    Raises:
        MultimodalError: the folder holds a run already, another process trains in it, the checkpoint is damaged, or too many
            rows cannot be read.
        UsageError: the settings do not fit the data or one another.
    """
    _check_objects(model, data)
    check_types("fit", fit, {"run": run, "resume": resume, "monitor": monitor})
    check_trainer_settings("fit", trainer, {"model", "data", "run", "resume", "monitor"})
    run = Path(run)
    with run_lock(run):
        if (run / CHECKPOINTS).exists() and not resume:
            raise MultimodalError(f"{run} holds a run already. Resume it with resume=True, or name another folder.")
        last = checkpoint_to_resume(run)
        if last is not None:
            check_readable(Path(last))
        share_cores(getattr(data, "workers", 0))
        with quiet_libraries():
            report = TextLossMonitor if isinstance(model, TextPretrainingModule) else RetrievalMonitor
            chosen = make_trainer(run, report=report() if monitor is None else report(monitor), **trainer)
            warn_of_unused_settings(model, data)
            chosen.fit(model, datamodule=data, ckpt_path=last, weights_only=True)
    return Embedder.from_pretrained(run)


def _check_objects(model: Any, data: Any) -> None:
    """Check that ``model`` and ``data`` are Lightning's modules, of whatever class, and not swapped."""
    swapped = isinstance(model, pl.LightningDataModule) and isinstance(data, pl.LightningModule)
    order = " The order is fit(model, data)." if swapped else ""
    if not isinstance(model, pl.LightningModule):
        raise UsageError(
            f"fit: model must be an EmbedderModule, not {describe_value(model)};"
            f" for example, multimodal.EmbedderModule({{'text': multimodal.create('text', 'bag')}}).{order}"
        )
    if not isinstance(data, pl.LightningDataModule):
        raise UsageError(
            f"fit: data must be a DataModule, not {describe_value(data)};"
            f" for example, multimodal.DataModule('pairs.csv', {{'image': 'picture', 'text': 'title'}})."
        )
