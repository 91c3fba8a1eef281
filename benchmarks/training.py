"""Training speed on the glyphs: our module under Lightning against a bare PyTorch loop.

Both train the same encoders (those of configs/glyphs.yaml) under the same loss, on the same batches, with the same
optimizer, precision and threads. The bare loop is what one would write by hand: no Lightning, no logging, no schedule.
They take turns within one run; a round's speed leaves the first steps out. Printed are the samples per second of each
(median of the rounds) and their ratio, round by round, with its median.

    python benchmarks/training.py [--steps 30] [--rounds 5] [--batch-size 256]
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from lightning.pytorch.loggers import CSVLogger

from multimodal.core import registry
from multimodal.core.batch import Batch
from multimodal.core.embedder import Embedder
from multimodal.core.hardware import fast_precision, reserve_one_core
from multimodal.data.datamodule import DataModule
from multimodal.data.loaders import Collate, ProcessedSamples
from multimodal.data.samplers import Draw
from multimodal.objectives import InfoNCE
from multimodal.training.callbacks.throughput import Throughput
from multimodal.training.module import EmbedderModule

CONFIG = Path(__file__).parents[1] / "configs" / "glyphs.yaml"
WARM_UP = 5  # steps of a round that do not count


def encoders(config: dict[str, Any]) -> dict[str, Any]:
    torch.manual_seed(0)
    specs = config["model"]["encoders"].items()
    return {m: registry.create(m, spec["class_path"], **spec["init_args"]) for m, spec in specs}


class Clock(pl.Callback):
    """The time from the end of the warm-up to the end of training."""

    seconds = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
        if trainer.global_step == WARM_UP:
            self._start = time.perf_counter()
        self.seconds = time.perf_counter() - getattr(self, "_start", 0.0)


def ours(config: dict[str, Any], data: DataModule, steps: int, folder: Path) -> float:
    """Seconds for the steps after the warm-up, with the log that `multimodal fit` writes."""
    module = EmbedderModule(encoders(config), config["model"]["dim"], optimizer=optimizer)
    clock = Clock()
    trainer = pl.Trainer(
        max_steps=steps,
        precision=fast_precision(),
        gradient_clip_val=1.0,
        log_every_n_steps=10,
        logger=CSVLogger(folder),
        callbacks=[Throughput(), clock],
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data)
    return clock.seconds


def bare(config: dict[str, Any], data: DataModule, steps: int) -> float:
    """The same steps in a plain loop."""
    embedder, objective = Embedder(encoders(config), config["model"]["dim"]), InfoNCE()
    rows = data.samples.rows("train")
    embedder.fit_processors({"text": data.samples.values("text", rows)})
    parameters = [*embedder.parameters(), *objective.parameters()]
    adamw = optimizer(parameters)
    precise = fast_precision() == "32-true"
    start = 0.0
    embedder.train()
    for step, batch in enumerate(batches(embedder, data, steps)):
        if step == WARM_UP:
            start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            embeddings = embedder.embed(batch)
        adamw.zero_grad()
        objective(embeddings).total.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        adamw.step()
    return time.perf_counter() - start


def batches(embedder: Embedder, data: DataModule, steps: int) -> Iterator[Batch]:
    samples = ProcessedSamples(data.samples, embedder.processors)
    collate = Collate(embedder.processors)
    rows = torch.from_numpy(data.samples.rows("train"))
    for _ in range(steps):
        drawn = rows[torch.randperm(len(rows))[: data.batch_size]].tolist()
        yield collate.batch([samples[Draw(row, (0, row))] for row in drawn])


def optimizer(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.05)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--steps", type=int, default=30, help="steps in a round, the warm-up among them")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--batch-size", type=int, default=256)
    options = p.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    reserve_one_core()
    config = yaml.safe_load(CONFIG.read_text())
    data = DataModule(**config["data"] | {"batch_size": options.batch_size})
    counted = (options.steps - WARM_UP) * options.batch_size
    speeds: dict[str, list[float]] = {"ours": [], "bare": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            turns = ("ours", "bare") if number % 2 else ("bare", "ours")  # neither always comes first
            for turn in turns:
                seconds = (
                    bare(config, data, options.steps)
                    if turn == "bare"
                    else ours(config, data, options.steps, Path(folder))
                )
                speeds[turn].append(counted / seconds)
            print(
                f"round {number + 1}: ours {speeds['ours'][-1]:.0f}, bare {speeds['bare'][-1]:.0f} samples/s",
                flush=True,
            )
    ratios = [a / b for a, b in zip(speeds["ours"], speeds["bare"], strict=True)]
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    print(f"{torch.get_num_threads()} threads, {fast_precision()}, batches of {options.batch_size}")
    print(f"ours {medians['ours']:.0f}, bare {medians['bare']:.0f} samples/s (medians)")
    print(f"ratio ours/bare: median {statistics.median(ratios):.3f}, all {', '.join(f'{r:.3f}' for r in ratios)}")


if __name__ == "__main__":
    main()
