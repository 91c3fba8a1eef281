"""How many data workers keep a device busy with pictures: training from a table of JPEG files.

A table of JPEG files (made on the spot) with a caption each trains the towers of open_clip's ViT-B-32, random weights, in
bfloat16 where the machine has it. Printed for each number of workers:

- loaded: the samples a second that the loader makes, without training;
- trained: the samples a second of ``fit``, after the first steps;
- of the step: the latter as a part of what the training step reaches on a batch that lies in memory.

On a GPU also the pictures a second that torchvision decodes there (``decode_jpeg``, without resizing), for comparison.

    python benchmarks/pictures.py [--workers 0 1] [--steps 6] [--batch-size 16] [--edge 256] [--files 256]
    python benchmarks/pictures.py --device cuda --workers 1 2 4 8 12 16 --steps 30 --batch-size 256 --files 2048
"""

from __future__ import annotations

import argparse
import csv
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import torch
from device import Device, add_options, clock, record
from PIL import Image
from step_clock import StepClock
from torch.utils.data import DataLoader

from multimodal.core import registry
from multimodal.core.batch import Batch
from multimodal.core.hardware import fast_precision, share_cores
from multimodal.data.datamodule import DataModule
from multimodal.training.module import EmbedderModule

ARCH = "ViT-B-32"
WARM_UP = 4  # steps that do not count


def write_table(folder: Path, files: int, rows: int, edge: int) -> Path:
    """Smooth random pictures, which JPEG packs as well as photographs, each in several rows of a CSV file."""
    rng = np.random.default_rng(0)
    for number in range(files):
        coarse = Image.fromarray(rng.integers(0, 256, (edge // 16, edge // 16, 3), dtype=np.uint8))
        coarse.resize((edge, edge), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=90)
    with (folder / "pairs.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["picture", "title", "split"])
        table.writerows([f"{n % files}.jpg", f"picture number {n}", "train"] for n in range(rows))
        table.writerows([f"{n % files}.jpg", f"picture number {n}", "validation"] for n in range(2))
    return folder / "pairs.csv"


class Trial:
    def __init__(self, options: argparse.Namespace, table: Path) -> None:
        self.options, self.table = options, table
        self.device: Device = options.device
        torch.manual_seed(0)
        self.encoders = {m: registry.create(m, "open_clip", arch=ARCH) for m in ("image", "text")}

    def data(self, workers: int) -> DataModule:
        columns: Any = {"image": "picture", "text": "title"}
        size = self.options.batch_size
        return DataModule(str(self.table), columns, split="split", batch_size=size, workers=workers)

    def module(self) -> EmbedderModule:
        return EmbedderModule(self.encoders, self.encoders["image"].width)

    def trainer(self, callbacks: list[pl.Callback]) -> pl.Trainer:
        precision = "bf16-mixed" if self.device == "cuda" else fast_precision()
        return pl.Trainer(
            accelerator="gpu" if self.device == "cuda" else "cpu", devices=1, max_steps=self.options.steps,
            precision=precision, callbacks=callbacks, logger=False, limit_val_batches=0, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip

    def trained(self, workers: int) -> float:
        """Samples a second of ``fit``."""
        watch = StepClock(self.device, WARM_UP, self.options.steps)
        self.trainer([watch]).fit(self.module(), self.data(workers))
        return (self.options.steps - WARM_UP) * self.options.batch_size / watch.seconds

    def first_batch(self) -> Batch:
        data, trainer = self.data(0), self.trainer([])
        trainer.strategy.connect(self.module())
        data.trainer = trainer
        return next(iter(data.train_dataloader()))

    def step(self) -> float:
        """Samples a second of the training step, on a batch in memory."""
        batch = self.first_batch()
        batch = batch.pin_memory() if self.device == "cuda" else batch
        watch = StepClock(self.device, WARM_UP, self.options.steps)
        batches = DataLoader[Any](cast(Any, [batch] * self.options.steps), batch_size=None)
        self.trainer([watch]).fit(self.module(), batches)
        return (self.options.steps - WARM_UP) * self.options.batch_size / watch.seconds

    def loaded(self, workers: int) -> float:
        """Samples a second of the loader alone."""
        data, trainer = self.data(workers), self.trainer([])
        trainer.strategy.connect(self.module())
        data.trainer = trainer
        start = 0.0
        for number, batch in enumerate(data.train_dataloader()):
            batch.to(self.device, non_blocking=True)
            if number == WARM_UP:
                start = clock(self.device)
            elif number == self.options.steps:
                break
        return (self.options.steps - WARM_UP) * self.options.batch_size / (clock(self.device) - start)


def decoded_on_gpu(folder: Path, batch_size: int) -> float:
    """Pictures a second that torchvision decodes on a GPU."""
    from torchvision.io import decode_jpeg, read_file

    files: Any = [read_file(str(path)) for path in sorted(folder.glob("*.jpg"))[:batch_size]]
    decode_jpeg(files, device="cuda")
    start = clock("cuda")
    for _ in range(5):
        decode_jpeg(files, device="cuda")
    return 5 * len(files) / (clock("cuda") - start)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--workers", type=int, nargs="+", default=[0, 1])
    p.add_argument("--steps", type=int, default=6, help=f"of each measurement, {WARM_UP} of them to warm up")
    p.add_argument("--batch-size", type=int, default=16)
    p.add_argument("--edge", type=int, default=256, help="of the pictures in the files, in pixels")
    p.add_argument("--files", type=int, default=256)
    add_options(p)
    options = p.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    share_cores(max(options.workers))
    with tempfile.TemporaryDirectory() as folder:
        rows = (options.steps + 2) * options.batch_size
        trial = Trial(options, write_table(Path(folder), options.files, rows, options.edge))
        step = trial.step()
        print(
            f"JPEG files of {options.edge} x {options.edge}, batches of {options.batch_size}; the step: {step:,.0f} a second"
        )
        figures: dict[str, Any] = {"step_samples_per_second": step, "workers": []}
        for workers in options.workers:
            loaded, trained = trial.loaded(workers), trial.trained(workers)
            figures["workers"].append(
                {"workers": workers, "loaded": loaded, "trained": trained, "of_step": trained / step}
            )
            print(
                f"{workers:3} workers: loaded {loaded:7,.0f}, trained {trained:7,.0f} samples/s,"
                f" {trained / step:.0%} of the step",
                flush=True,
            )
        if options.device == "cuda":
            figures["decoded_on_gpu"] = decoded_on_gpu(Path(folder), options.batch_size)
            print(f"decoded on the GPU: {figures['decoded_on_gpu']:,.0f} pictures a second")
    record(options, figures)


if __name__ == "__main__":
    main()
