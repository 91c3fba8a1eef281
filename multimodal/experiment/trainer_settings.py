"""The settings in which a run's trainer differs from Lightning's own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import Logger

from multimodal.core.hardware import fast_precision
from multimodal.core.run_folder import LOGS
from multimodal.experiment.lazy_loggers import LazyCSVLogger, LazyTensorBoardLogger

TRAINER_ERRORS = (MisconfigurationException, ValueError, TypeError)  # what Lightning's Trainer raises of wrong settings


def trainer_defaults() -> dict[str, Any]:
    """The settings in which a run's trainer differs from Lightning's own."""
    return {
        "precision": fast_precision(),
        "log_every_n_steps": 10,
        "use_distributed_sampler": False,  # our samplers divide the batches themselves
        "enable_model_summary": False,  # ours says more in fewer lines
        "enable_autolog_hparams": False,  # our modules have none, and the loggers would write before the first step
    }


def run_loggers(run: Path) -> list[Logger]:
    """Loggers that write ``logs/version_N`` in a run's folder, from the first log on: metrics.csv and TensorBoard's events."""
    csv = LazyCSVLogger(run, name=LOGS)
    return [csv, LazyTensorBoardLogger(run, name=LOGS, version=csv.version)]


def explain_misconfiguration(message: str, accelerator: Any) -> str:
    """What Lightning's message about a trainer's settings means for the user."""
    if "invalid accelerator name" in message:
        return f"The accelerator {accelerator!r} is unknown; use auto, cpu, cuda or mps, and devices: [0] for the first GPU."
    if not re.search("No supported gpu backend|can not run on your system", message):
        return message
    return f"accelerator {accelerator}: no such device was found here; use auto or cpu."
