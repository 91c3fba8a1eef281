"""The configuration that a run from Python keeps, written before its first step."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from multimodal.core.run_folder import RUN_CONFIG
from multimodal.data.datamodule import DataModule
from multimodal.experiment.describe import describe
from multimodal.experiment.lightning_cli import PretrainCLI, TrainCLI, completed
from multimodal.experiment.write_config import write_config
from multimodal.training.text_pretraining import TextPretrainingModule
from multimodal.training.training_module import TrainingModule


class SaveObjects(Callback):
    """Writes the configuration that the objects of a training from Python amount to.

    Args:
        settings: the trainer's, as they were given.

    Examples:
        >>> SaveObjects({"max_steps": 500}).settings
        {'max_steps': 500}
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        data = getattr(trainer, "datamodule", None)
        if not trainer.is_global_zero:
            return
        if not (isinstance(pl_module, TrainingModule) and isinstance(data, DataModule)):
            return  # a module or data module of the user's own: only they know how it is made
        run = Path(trainer.default_root_dir)
        config, left_out = describe(pl_module, data, run, self.settings)
        comments = [f"Made by a program, so not in this file: {key}." for key in left_out]
        for comment in comments:
            print(f"Note on {run / RUN_CONFIG}: {comment}", file=sys.stderr)
        if isinstance(config["data"].get("table"), str):  # every key, as ``multimodal fit`` saves them
            cli = PretrainCLI if isinstance(pl_module, TextPretrainingModule) else TrainCLI
            config = completed(cli, config)
        write_config(run, config, comments)
