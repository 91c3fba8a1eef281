"""Encoders that are unfrozen during training: two processes train the same weights as one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.utils.data import DataLoader, IterableDataset

from multimodal.core.batch import Batch, Sample
from multimodal.core.encoder import Encoder, Processor
from multimodal.training.module import EmbedderModule

STEPS, ROWS = 6, 8


class Vectors(Processor):
    def __call__(self, value: Any) -> Tensor:
        return value

    def collate(self, items: Any) -> dict[str, Tensor]:
        return {"x": torch.stack(list(items))}


class Deep(Encoder):
    def __init__(self) -> None:
        super().__init__()
        self.width, self.processor = 4, Vectors()
        self.stem, self.top = nn.Linear(3, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.stem(x).tanh())


class RankRows(IterableDataset[Batch]):
    """This rank's rows of one batch, once per step."""

    def __iter__(self) -> Iterator[Batch]:
        rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        values = torch.randn(ROWS, 2, 3, generator=torch.Generator().manual_seed(1))
        own = range(rank * ROWS // ranks, (rank + 1) * ROWS // ranks)
        samples = [Sample(str(i), {"a": values[i, 0], "b": values[i, 1]}, str(i)) for i in own]
        for _ in range(STEPS):
            yield Batch.collate(samples, {"a": Vectors(), "b": Vectors()})


class SaveWeights(pl.Callback):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        torch.save(pl_module.state_dict(), self.folder / f"{trainer.world_size}-{trainer.global_rank}.pt")


def sgd(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=0.1)


def train(devices: int, freeze: Any, folder: Path) -> None:
    torch.manual_seed(0)
    module = EmbedderModule({"a": Deep(), "b": Deep()}, dim=4, optimizer=sgd, freeze=freeze)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp_spawn" if devices > 1 else "auto",
        max_steps=STEPS,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        callbacks=[SaveWeights(folder)],
    )
    trainer.fit(module, DataLoader(RankRows(), batch_size=None))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("freeze", [{"a": {0: "all", 2: "stem", 4: "none"}}, {"a": {2: "all"}, "b": "stem"}])
def test_two_processes_train_the_same_weights_as_one(freeze: Any, tmp_path: Path) -> None:
    train(1, freeze, tmp_path)
    train(2, freeze, tmp_path)
    expected, *ranks = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1"))
    for name, tensor in expected.items():
        for rank in ranks:
            torch.testing.assert_close(rank[name], tensor, rtol=1e-5, atol=1e-6)
