"""Training speed on the glyphs: our module under Lightning against a bare PyTorch loop.

Both train the same encoders (those of configs/glyphs.yaml) under the same loss, on the same batches, with the same
optimizer, precision and threads. The bare loop is what one would write by hand: no Lightning, no logging, no schedule. On a
GPU both take their batches from torch's loader with as many workers, which read ahead into pinned memory.
They take turns within one run; a round's speed leaves the first steps out. Printed are the samples per second of each
(median of the rounds) and their ratio, round by round, with its median; and which share of the machine's speed for products of
large matrices, in the same number format and with the same threads, the products of our training steps reach.

    python benchmarks/training.py [--steps 30] [--rounds 5] [--batch-size 512]
    python benchmarks/training.py --device cuda --workers 12 --steps 100
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
import yaml
from device import Device, add_options, clock, product_speed, record
from lightning.pytorch.loggers import CSVLogger
from step_clock import StepClock
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from multimodal.core import registry
from multimodal.core.batch import Batch
from multimodal.core.embedder import Embedder
from multimodal.core.garbage import loaded_frozen
from multimodal.core.hardware import fast_precision, share_cores
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


def ours(config: dict[str, Any], data: DataModule, steps: int, folder: Path, device: Device) -> float:
    """Seconds for the steps after the warm-up, with the log that `multimodal fit` writes."""
    module = EmbedderModule(encoders(config), config["model"]["dim"], optimizer=optimizer)
    watch = StepClock(device, WARM_UP, steps)
    trainer = pl.Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        max_steps=steps,
        precision=fast_precision(),
        gradient_clip_val=1.0,
        log_every_n_steps=10,
        logger=CSVLogger(folder),
        callbacks=[Throughput(), watch],
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with loaded_frozen():  # as `multimodal fit` does
        trainer.fit(module, data)
    return watch.seconds


def bare(config: dict[str, Any], data: DataModule, steps: int, device: Device) -> float:
    """The same steps in a plain loop."""
    embedder, objective = Embedder(encoders(config), config["model"]["dim"]).to(device), InfoNCE().to(device)
    rows = data.samples.rows("train")
    embedder.fit_processors({"text": data.samples.values("text", rows)})
    parameters = [*embedder.parameters(), *objective.parameters()]
    adamw = optimizer(parameters)
    precise = fast_precision() == "32-true"
    start = 0.0
    embedder.train()
    made = batches(embedder, data, steps) if device == "cpu" else read_ahead(embedder, data, steps)
    for step, batch in enumerate(made, 1):
        with torch.autocast(device, torch.bfloat16, enabled=not precise):
            embeddings = embedder.embed(batch.to(device))
        adamw.zero_grad()
        objective(embeddings).total.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        adamw.step()
        if step == WARM_UP:  # here, as the other clock's, so that both count as many readings as steps
            start = clock(device)
    return clock(device) - start


def batches(embedder: Embedder, data: DataModule, steps: int) -> Iterator[Batch]:
    samples = ProcessedSamples(data.samples, embedder.processors, data.keep_items, data.modality_drop)
    collate = Collate(embedder.processors)
    rows = torch.from_numpy(data.samples.rows("train"))
    for _ in range(steps):
        drawn = rows[torch.randperm(len(rows))[: data.batch_size]].tolist()
        yield collate.batch([samples[Draw(row, (0, row))] for row in drawn])


def read_ahead(embedder: Embedder, data: DataModule, steps: int) -> Iterator[Batch]:
    samples = ProcessedSamples(data.samples, embedder.processors, data.keep_items, data.modality_drop)
    collate = Collate(embedder.processors)
    rows = torch.from_numpy(data.samples.rows("train"))
    drawn = [rows[torch.randperm(len(rows))[: data.batch_size]].tolist() for _ in range(steps)]
    order = [[Draw(row, (0, row)) for row in batch] for batch in drawn]
    yield from DataLoader[Any](
        samples, batch_sampler=cast(Any, order), collate_fn=collate, num_workers=data.workers, pin_memory=True
    )


def products(config: dict[str, Any], data: DataModule) -> float:
    """Floating-point operations of the matrix products and convolutions of a training step, for each sample."""
    embedder, objective = Embedder(encoders(config), config["model"]["dim"]), InfoNCE()
    embedder.fit_processors({"text": data.samples.values("text", data.samples.rows("train"))})
    (batch,) = batches(embedder.train(), data, 1)
    with FlopCounterMode(display=False) as counter:
        objective(embedder.embed(batch)).total.backward()
    return counter.get_total_flops() / len(batch)


def optimizer(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.05)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--steps", type=int, default=30, help="steps in a round, the warm-up among them")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--batch-size", type=int, help="by default that of the configuration")
    p.add_argument("--workers", type=int, help="processes that read data; by default those of the configuration")
    add_options(p)
    options = p.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    config = yaml.safe_load(CONFIG.read_text())
    given = {"workers": options.workers, "batch_size": options.batch_size}
    data = DataModule(**config["data"] | {name: value for name, value in given.items() if value is not None})
    share_cores(data.workers)
    counted = (options.steps - WARM_UP) * data.batch_size
    speeds: dict[str, list[float]] = {"ours": [], "bare": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            turns = ("ours", "bare") if number % 2 else ("bare", "ours")  # neither always comes first
            for turn in turns:
                seconds = (
                    bare(config, data, options.steps, options.device)
                    if turn == "bare"
                    else ours(config, data, options.steps, Path(folder), options.device)
                )
                speeds[turn].append(counted / seconds)
            print(
                f"round {number + 1}: ours {speeds['ours'][-1]:.0f}, bare {speeds['bare'][-1]:.0f} samples/s",
                flush=True,
            )
    ratios = [a / b for a, b in zip(speeds["ours"], speeds["bare"], strict=True)]
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    print(f"{torch.get_num_threads()} threads, {fast_precision()}, batches of {data.batch_size}")
    print(f"ours {medians['ours']:.0f}, bare {medians['bare']:.0f} samples/s (medians)")
    print(f"ratio ours/bare: median {statistics.median(ratios):.3f}, all {', '.join(f'{r:.3f}' for r in ratios)}")
    dtype = torch.float32 if fast_precision() == "32-true" else torch.bfloat16
    work, limit = products(config, data), product_speed(options.device, dtype)
    share = work * medians["ours"] / limit
    print(
        f"{work / 1e6:.0f} MFLOP a sample in products, {limit / 1e9:.0f} GFLOP/s for large matrices: {share:.2f} of this limit"
    )
    result = {"samples_per_second": medians, "ratio": statistics.median(ratios), "ratios": ratios}
    record(options, result | {"flop_per_sample": work, "limit_flop_per_second": limit, "share_of_limit": share})


if __name__ == "__main__":
    main()
