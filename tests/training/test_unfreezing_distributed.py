"""Encoders that are unfrozen during training: two processes train the same weights as one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from saved_weights import SaveWeights, sgd
from torch import distributed as dist
from torch.utils.data import DataLoader, IterableDataset
from vector_encoders import TwoLayers, VectorProcessor

from multimodal.core.batch import Batch, Sample
from multimodal.training.module import EmbedderModule

STEPS, ROWS = 6, 8


class RankRows(IterableDataset[Batch]):
    """This rank's rows of one batch, once per step."""

    def __iter__(self) -> Iterator[Batch]:
        rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        values = torch.randn(ROWS, 2, 3, generator=torch.Generator().manual_seed(1))
        own = range(rank * ROWS // ranks, (rank + 1) * ROWS // ranks)
        samples = [Sample(str(i), {"a": values[i, 0], "b": values[i, 1]}, str(i)) for i in own]
        for _ in range(STEPS):
            yield Batch.collate(samples, {"a": VectorProcessor(), "b": VectorProcessor()})


def train(devices: int, freeze: Any, folder: Path) -> None:
    torch.manual_seed(0)
    module = EmbedderModule({"a": TwoLayers(), "b": TwoLayers()}, dim=4, optimizer=sgd, freeze=freeze)
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
