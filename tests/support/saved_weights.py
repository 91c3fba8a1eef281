"""What the tests of several processes train with, and the weights that each of them writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch


class SaveWeights(pl.Callback):
    """Writes each process's weights at the end of training, to ``{processes}-{rank}.pt``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        torch.save(pl_module.state_dict(), self.folder / f"{trainer.world_size}-{trainer.global_rank}.pt")


def sgd(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=0.1)
