"""Time and memory of a training step in parts: ours, that of sentence-transformers, and the plain step.

One step is the forward and backward pass of two towers (the picture and text encoders of configs/glyphs.yaml with their
heads, without dropout) over N random pictures of 48 x 48 pixels and texts of 16 tokens, in float32, under symmetric InfoNCE.
Ours is ``GradientCache`` under ``InfoNCE``, theirs ``CachedMultipleNegativesRankingLoss`` in both directions, both with
parts of the same size; the plain step embeds all rows at once. Both of the steps in parts are checked to have the same
loss. Times are taken in one process in which the three take turns (medians, and of the ratios of each round), by the
clock and, after the stroke, of the processor, which other programs disturb less. The peak memory is that of a process of its
own: its highest resident size less its size with model and inputs in place.

    python benchmarks/gradient_cache.py [--sizes 512 1024 2048 4096] [--part 128] [--rounds 5] [--threads 1]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from multimodal.core import registry
from multimodal.core.batch import Batch, MicroBatches
from multimodal.core.embedder import Embedder
from multimodal.objectives import InfoNCE
from multimodal.training.gradient_cache import GradientCache

CONFIG = Path(__file__).parents[1] / "configs" / "glyphs.yaml"
SIDES = ("cached", "peer", "plain")
PLAIN = 2048  # rows; beyond, the plain step needs --all
Inputs = dict[str, dict[str, Tensor]]


def embedder() -> Embedder:
    torch.manual_seed(0)
    specs = yaml.safe_load(CONFIG.read_text())["model"]["encoders"]
    settings = {"image": specs["image"]["init_args"], "text": specs["text"]["init_args"] | {"drop": 0.0}}
    return Embedder({m: registry.create(m, specs[m]["class_path"], **s) for m, s in settings.items()})


def inputs(n: int) -> Inputs:
    torch.manual_seed(1)
    pixels = torch.randint(0, 256, (n, 1, 48, 48), dtype=torch.uint8)
    return {"image": {"pixels": pixels}, "text": {"tokens": torch.randint(1, 2000, (n, 16))}}


def batch(whole: Inputs, start: int, end: int) -> Batch:
    rows = torch.arange(min(end, len(whole["text"]["tokens"])) - start)
    sliced = {m: {name: t[start:end] for name, t in tensors.items()} for m, tensors in whole.items()}
    return Batch(sliced, dict.fromkeys(whole, rows), rows + start)


class Towers(nn.Module):
    """The embedder as a module of sentence-transformers: the inputs of one modality -> ``sentence_embedding``."""

    def __init__(self, model: Embedder) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        modality = "image" if "pixels" in features else "text"
        return {"sentence_embedding": self.model.project(modality, self.model.features(modality, features))}


def step_of(side: str, model: Embedder, whole: Inputs, part: int) -> Callable[[], float]:
    """A call that makes a step and returns the loss."""
    objective, n = InfoNCE(), len(whole["text"]["tokens"])

    def plain() -> float:
        loss = objective(model.embed(batch(whole, 0, n))).total
        loss.backward()
        return loss.item()

    def cached() -> float:
        parts = tuple(batch(whole, start, start + part) for start in range(0, n, part))
        cache = GradientCache(model, MicroBatches(parts), 0, contextlib.nullcontext)
        loss = objective(cache.embeddings).total
        loss.backward()
        cache.backward()
        return loss.item()

    if side != "peer":
        return plain if side == "plain" else cached
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss

    peer = CachedMultipleNegativesRankingLoss(
        SentenceTransformer(modules=[Towers(model)], device="cpu"),
        scale=1 / 0.07,
        mini_batch_size=part,
        directions=("query_to_doc", "doc_to_query"),
        partition_mode="per_direction",
    )
    model.train()

    def theirs() -> float:
        loss = peer([dict(whole["image"]), dict(whole["text"])], torch.empty(0))
        loss.backward()
        return loss.item()

    return theirs


def timed(step: Callable[[], float], model: Embedder) -> tuple[float, float, float]:
    """Seconds by the clock and of the processor, and the loss."""
    model.zero_grad()
    start, worked = time.perf_counter(), time.process_time()
    loss = step()
    return time.perf_counter() - start, time.process_time() - worked, loss


def take_turns(sides: list[str], n: int, part: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    model, whole = embedder(), inputs(n)
    steps = {side: step_of(side, model, whole, part) for side in sides}
    losses = {side: timed(step, model)[-1] for side, step in steps.items()}  # the first step does not count
    assert abs(losses["cached"] - losses["peer"]) < 1e-4 * losses["peer"], losses
    times: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    for number in range(rounds):
        for side in sides if number % 2 else sides[::-1]:  # neither always comes first
            times[side].append(timed(steps[side], model)[:2])
    return times


def peak(side: str, n: int, part: int) -> int:
    """Bytes above the model and the inputs."""
    model = embedder()
    timed(step_of(side, model, inputs(8), 4), model)  # what is set up once
    step = step_of(side, model, inputs(n), part)
    with open("/proc/self/statm") as statm:
        before = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    timed(step, model)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def in_own_process(options: argparse.Namespace, *task: str) -> Any:
    numbers = [f"--{name}={getattr(options, name)}" for name in ("part", "rounds", "threads")]
    command = [sys.executable, __file__, "--task", *task, *numbers]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def report(options: argparse.Namespace) -> None:
    print(f"parts of {options.part} rows, {options.threads} threads; ratios: of cached to the other, clock / processor")
    print(f"{'N':>6} | {'seconds':>7} {'peer':>7} {'plain':>7} | {'to peer':>13} {'to plain':>13} | MB, peer, plain")
    for n in options.sizes:
        sides = [side for side in SIDES if side != "plain" or n <= PLAIN or options.all]
        times = in_own_process(options, "time", ",".join(sides), str(n))
        memory = {side: f"{in_own_process(options, 'peak', side, str(n)) / 1e6:,.0f}" for side in sides}
        took = {side: f"{statistics.median(clock for clock, _ in times[side]):.2f}" for side in sides}
        ratios = {}
        for other in sides[1:]:
            turns = list(zip(times["cached"], times[other], strict=True))
            ratios[other] = " / ".join(f"{statistics.median(a[i] / b[i] for a, b in turns):.3f}" for i in (0, 1))
        cells = [found.get(side, "-") for found in (took, ratios, memory) for side in SIDES]
        seconds, peer, plain, _, to_peer, to_plain, *megabytes = cells
        print(
            f"{n:>6,} | {seconds:>7} {peer:>7} {plain:>7} | {to_peer:>13} {to_plain:>13} | {', '.join(megabytes)}",
            flush=True,
        )


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048, 4096])
    p.add_argument("--part", type=int, default=128)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=torch.get_num_threads())
    p.add_argument("--all", action="store_true", help=f"the plain step beyond N = {PLAIN:,} too")
    p.add_argument("--task", nargs=3, help=argparse.SUPPRESS)
    options = p.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")
    if options.task is None:
        report(options)
        return
    what, side, n = options.task
    found = (
        peak(side, int(n), options.part)
        if what == "peak"
        else take_turns(side.split(","), int(n), options.part, options.rounds)
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
