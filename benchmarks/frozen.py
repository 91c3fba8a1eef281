"""The time of an epoch with a frozen picture tower whose features are kept, against the same run without.

Trained are the picture and text encoders of configs/glyphs.yaml, on the pictures of one font. Three runs take turns:

- kept: ``model.frozen: [image]``; from the second epoch on the features come from the disk;
- run: the same, but the frozen encoder runs at every step, and the pictures are read for it;
- trained: nothing is frozen.

Printed are the seconds of an epoch after the first (median of the rounds), the first epoch's of the first round, in which
the features are made, the rows that went through the tower in a later epoch, and the ratios of each round.

    python benchmarks/frozen.py [--rounds 3] [--epochs 2] [--batch-size 256] [--threads 1] [--device cuda]
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import yaml
from device import Device, add_options, record

from multimodal.core import registry
from multimodal.core.encoder import Processor
from multimodal.data.datamodule import DataModule
from multimodal.training.module import EmbedderModule

CONFIG = Path(__file__).parents[1] / "configs" / "glyphs.yaml"
SIDES = ("kept", "run", "trained")
TOWER = "image"


class AtEveryStep(DataModule):
    """Frozen encoders get the raw values, as others do."""

    def _with_features(self, rows: np.ndarray) -> Mapping[str, Processor]:
        return dict(self._processors)


class Epochs(pl.Callback):
    """The seconds of each epoch, what comes before the first counted with it, and the rows that the tower saw in it."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.rows: list[int] = []
        self._since, self._rows = 0.0, 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        def count(encoder: Any, inputs: Any, features: torch.Tensor) -> None:
            self._rows += len(features)

        assert isinstance(pl_module, EmbedderModule)
        pl_module.embedder.encoder(TOWER).register_forward_hook(count)
        self._since = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        now = time.perf_counter()
        self.seconds.append(now - self._since)
        self.rows.append(self._rows)
        self._since, self._rows = now, 0


def run(side: str, batch_size: int, epochs: int, device: Device) -> Epochs:
    config = yaml.safe_load(CONFIG.read_text())
    torch.manual_seed(0)
    specs = {m: config["model"]["encoders"][m] for m in (TOWER, "text")}
    module = EmbedderModule(
        {m: registry.create(m, spec["class_path"], **spec["init_args"]) for m, spec in specs.items()},
        freeze={} if side == "trained" else {TOWER: "all"},
    )
    settings = config["data"] | {"train": "unseen_font", "batch_size": batch_size, "workers": 0}
    data = (AtEveryStep if side == "run" else DataModule)(**settings)
    clock = Epochs()
    trainer = pl.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        max_epochs=epochs,
        precision="32-true",
        logger=False,
        callbacks=[clock],
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data)
    return clock


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--epochs", type=int, default=2)
    p.add_argument("--batch-size", type=int, default=256)
    p.add_argument("--threads", type=int, default=torch.get_num_threads())
    add_options(p)
    options = p.parse_args()
    torch.set_num_threads(options.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    first: dict[str, Epochs] = {}
    later: dict[str, list[float]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MULTIMODAL_CACHE"] = folder  # the first round makes the features
        for number in range(options.rounds):
            for side in SIDES if number % 2 else SIDES[::-1]:  # neither always comes first
                clock = run(side, options.batch_size, options.epochs, options.device)
                first.setdefault(side, clock)
                later[side].append(statistics.median(clock.seconds[1:]))
    print(f"{options.threads} threads, float32, batches of {options.batch_size}, {options.rounds} rounds")
    figures: dict[str, Any] = {}
    for side in SIDES:
        median, begun = statistics.median(later[side]), first[side]
        print(
            f"{side:>8}: {median:.2f} s an epoch, the first {begun.seconds[0]:.2f} s; {begun.rows[-1]:,} rows through"
        )
        figures[side] = {"epoch_seconds": median, "first_epoch_seconds": begun.seconds[0], "rows": begun.rows[-1]}
    for other in SIDES[1:]:
        ratios = [a / b for a, b in zip(later["kept"], later[other], strict=True)]
        print(f"kept/{other}: median {statistics.median(ratios):.3f}, all {', '.join(f'{r:.3f}' for r in ratios)}")
        figures[f"kept_over_{other}"] = statistics.median(ratios)
    record(options, figures)


if __name__ == "__main__":
    main()
