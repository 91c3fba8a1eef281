"""Time and memory of a training step in parts: ours, that of sentence-transformers, and the plain step.

One step is the forward and backward pass of two towers (the picture encoder of configs/glyphs.yaml and a text transformer,
with their heads, without dropout) over N random pictures of 48 x 48 pixels and texts of 16 tokens, in float32, under symmetric
InfoNCE; with ``--arch`` the towers of an architecture of open_clip (random weights), over pictures of its size and texts of 32
tokens. Ours is ``GradientCache`` under ``InfoNCE``, theirs ``CachedMultipleNegativesRankingLoss`` in both directions, both
with parts of the same size; the plain step embeds all rows at once. Both of the steps in parts are checked to have the same
loss. Times are taken in one process in which the three take turns (medians, and of the ratios of each round), by the clock
and, after the stroke, of the processor, which other programs disturb less. The peak memory is that of a process of its own:
its highest resident size less its size with model and inputs in place. On a GPU all is measured in one process: the time
between two synchronizations, the memory as torch's allocator counts it, above model, gradients and inputs.

    python benchmarks/gradient_cache.py [--sizes 512 1024 2048 4096] [--part 128] [--rounds 5] [--threads 1]
    python benchmarks/gradient_cache.py --device cuda --arch ViT-B-32 --precision bfloat16 --sizes 4096 --part 512
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
import yaml
from device import Device, add_options, clock, gpu_peak, record
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
Context = Callable[[], AbstractContextManager[Any]]


def embedder(options: argparse.Namespace) -> Embedder:
    torch.manual_seed(0)
    if options.arch is not None:
        towers = {m: registry.create(m, "open_clip", arch=options.arch) for m in ("image", "text")}
        made = Embedder(towers, towers["image"].width, {"image": "none", "text": "none"})
        return made.to(options.device)
    image = yaml.safe_load(CONFIG.read_text())["model"]["encoders"]["image"]
    encoders = {
        "image": registry.create("image", image["class_path"], **image["init_args"]),
        "text": registry.create("text", "transformer", vocab_size=2000, width=128, layers=2, drop=0.0),
    }
    return Embedder(encoders).to(options.device)


def inputs(n: int, options: argparse.Namespace, size: Sequence[int] = (48, 48)) -> Inputs:
    torch.manual_seed(1)
    shape = (n, 1, *size) if options.arch is None else (n, 3, *size)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device=options.device)
    if options.arch is None:
        tokens = torch.randint(1, 2000, (n, 16), device=options.device)
    else:
        tokens = torch.randint(1, 40_000, (n, 32), device=options.device)
        tokens[:, -1] = 49_407  # the end of a text
    return {"image": {"pixels": pixels}, "text": {"tokens": tokens}}


def batch(whole: Inputs, start: int, end: int) -> Batch:
    tokens = whole["text"]["tokens"]
    rows = torch.arange(min(end, len(tokens)) - start, device=tokens.device)
    sliced = {m: {name: t[start:end] for name, t in tensors.items()} for m, tensors in whole.items()}
    return Batch(sliced, dict.fromkeys(whole, rows), rows + start)


class Towers(nn.Module):
    """The embedder as a module of sentence-transformers: the inputs of one modality -> ``sentence_embedding``."""

    def __init__(self, model: Embedder, context: Context) -> None:
        super().__init__()
        self.model, self.context = model, context

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        modality = "image" if "pixels" in features else "text"
        with self.context():
            return {"sentence_embedding": self.model.project(modality, self.model.features(modality, features))}


def step_of(side: str, model: Embedder, whole: Inputs, part: int, precision: str) -> Callable[[], float]:
    """A call that makes a step and returns the loss."""
    tokens = whole["text"]["tokens"]
    objective, n = InfoNCE().to(tokens.device), len(tokens)
    bfloat16 = precision == "bfloat16"

    def context() -> AbstractContextManager[Any]:
        return torch.autocast(tokens.device.type, torch.bfloat16, enabled=bfloat16)

    def plain() -> float:
        with context():
            embeddings = model.embed(batch(whole, 0, n))
        loss = objective(embeddings).total
        loss.backward()
        return loss.item()

    def cached() -> float:
        parts = tuple(batch(whole, start, start + part) for start in range(0, n, part))
        cache = GradientCache(model, MicroBatches(parts), 0, context)
        loss = objective(cache.embeddings).total
        loss.backward()
        cache.backward()
        return loss.item()

    if side != "peer":
        return plain if side == "plain" else cached
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss

    peer = CachedMultipleNegativesRankingLoss(
        SentenceTransformer(modules=[Towers(model, context)], device=tokens.device.type),
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
    device: Device = "cuda" if model.device.type == "cuda" else "cpu"
    model.zero_grad()
    start, worked = clock(device), time.process_time()
    loss = step()
    return clock(device) - start, time.process_time() - worked, loss


def take_turns(sides: list[str], n: int, options: argparse.Namespace) -> dict[str, list[tuple[float, float]]]:
    model = embedder(options)
    whole = inputs(n, options, picture_size(model))
    steps = {side: step_of(side, model, whole, options.part, options.precision) for side in sides}
    losses = {side: timed(step, model)[-1] for side, step in steps.items()}  # the first step does not count
    allowed = 1e-4 if options.precision == "float32" else 1e-2
    assert abs(losses["cached"] - losses["peer"]) < allowed * losses["peer"], losses
    times: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    for number in range(options.rounds):
        for side in sides if number % 2 else sides[::-1]:  # neither always comes first
            times[side].append(timed(steps[side], model)[:2])
    return times


def picture_size(model: Embedder) -> Sequence[int]:
    size = getattr(model.encoder("image").processor, "size", 48)
    return (size, size) if isinstance(size, int) else size


def peak(side: str, n: int, options: argparse.Namespace) -> int:
    """Bytes above the model and the inputs; on a GPU above the gradients too, which a first step leaves."""
    model = embedder(options)
    size = picture_size(model)
    step = step_of(side, model, inputs(8, options, size), 4, options.precision)
    timed(step, model)  # what is set up once
    step = step_of(side, model, inputs(n, options, size), options.part, options.precision)
    if options.device == "cuda":
        return gpu_peak(step)
    with open("/proc/self/statm") as statm:
        before = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    timed(step, model)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def in_own_process(options: argparse.Namespace, *task: str) -> Any:
    settings = [f"--{name}={getattr(options, name)}" for name in ("part", "rounds", "threads", "precision")]
    settings += [] if options.arch is None else [f"--arch={options.arch}"]
    command = [sys.executable, __file__, "--task", *task, *settings]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def report(options: argparse.Namespace) -> None:
    print(
        f"parts of {options.part} rows, {options.threads} threads, {options.precision}; ratios: of cached to the other,"
        " clock / processor"
    )
    entries: list[dict[str, Any]] = []
    print(f"{'N':>6} | {'seconds':>7} {'peer':>7} {'plain':>7} | {'to peer':>13} {'to plain':>13} | MB, peer, plain")
    for n in options.sizes:
        sides = [side for side in SIDES if side != "plain" or n <= PLAIN or options.all]
        sizes, times = (measured_on_cpu if options.device == "cpu" else measured_on_gpu)(sides, n, options)
        memory = {side: f"{size / 1e6:,.0f}" for side, size in sizes.items()}
        seconds = {side: statistics.median(by_clock for by_clock, _ in taken) for side, taken in times.items()}
        took = {side: f"{median:.2f}" for side, median in seconds.items()}
        ratios, entry = {}, {"n": n, "seconds": seconds, "bytes": sizes}
        for other in list(times)[1:]:
            turns = list(zip(times["cached"], times[other], strict=True))
            ratios[other] = " / ".join(f"{statistics.median(a[i] / b[i] for a, b in turns):.3f}" for i in (0, 1))
            entry[f"ratio_to_{other}"] = statistics.median(a[0] / b[0] for a, b in turns)
        entries.append(entry)
        cells = [found.get(side, "-") for found in (took, ratios, memory) for side in SIDES]
        seconds, peer, plain, _, to_peer, to_plain, *megabytes = cells
        print(
            f"{n:>6,} | {seconds:>7} {peer:>7} {plain:>7} | {to_peer:>13} {to_plain:>13} | {', '.join(megabytes)}",
            flush=True,
        )
    record(options, entries)


def measured_on_cpu(
    sides: list[str], n: int, options: argparse.Namespace
) -> tuple[dict[str, int], dict[str, list[tuple[float, float]]]]:
    """The peak memory of each side, and its times."""
    times = in_own_process(options, "time", ",".join(sides), str(n))
    return {side: in_own_process(options, "peak", side, str(n)) for side in sides}, times


def measured_on_gpu(
    sides: list[str], n: int, options: argparse.Namespace
) -> tuple[dict[str, int], dict[str, list[tuple[float, float]]]]:
    """The same, without the sides that do not fit."""
    memory: dict[str, int] = {}
    for side in sides:
        try:
            memory[side] = peak(side, n, options)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
    return memory, take_turns([side for side in sides if side in memory], n, options)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048, 4096])
    p.add_argument("--part", type=int, default=128)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=torch.get_num_threads())
    p.add_argument("--all", action="store_true", help=f"the plain step beyond N = {PLAIN:,} too")
    p.add_argument("--arch", help="open_clip's name of an architecture, in place of these encoders")
    p.add_argument("--precision", choices=["float32", "bfloat16"], default="float32", help="of the encoders")
    p.add_argument("--task", nargs=3, help=argparse.SUPPRESS)
    add_options(p)
    options = p.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")
    if options.task is None:
        report(options)
        return
    what, side, n = options.task
    found = peak(side, int(n), options) if what == "peak" else take_turns(side.split(","), int(n), options)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
