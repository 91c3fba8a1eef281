"""Time and memory of the contrastive objectives against those of open_clip, on the same vectors.

InfoNCE against ClipLoss and Sigmoid against SigLipLoss: the forward and backward pass over two modalities of N unit
vectors of 512 components in float32, every row of a group of its own. Each figure is taken in processes of their own:
the time in one in which the two take turns (the medians of the rounds and of their ratios), the peak memory in one for
each (the process's highest resident size less its size with the inputs in place). Beside the ratio of the times by the
clock stands that of the processor's time, which other programs on the machine disturb less.

    python benchmarks/objectives.py [--sizes 1024 4096 16384] [--rounds 5] [--threads 1] [--all]

At N = 32,768 the losses of open_clip need some 17 GB; they are left out there unless --all is given.
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
from collections.abc import Callable

import torch
from open_clip.loss import ClipLoss, SigLipLoss
from torch import Tensor
from torch.nn import functional

from multimodal.core.embeddings import Embeddings
from multimodal.objectives import InfoNCE, Sigmoid

DIM = 512
LARGE = 32_768  # where the peers need --all
PEERS = {"InfoNCE": "ClipLoss", "Sigmoid": "SigLipLoss"}


def inputs(n: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    x, y = (functional.normalize(torch.randn(n, DIM)).requires_grad_() for _ in range(2))
    return x, y


def loss_of(name: str, x: Tensor, y: Tensor) -> Callable[[], Tensor]:
    """A call that computes the loss; its own parameters are learned too."""
    log_scale, bias = torch.tensor(14.3).log().requires_grad_(), torch.tensor(-10.0, requires_grad=True)
    if name == "ClipLoss":
        return lambda: ClipLoss()(x, y, log_scale.exp())
    if name == "SigLipLoss":
        return lambda: SigLipLoss()(x, y, log_scale.exp(), bias)
    objective = (InfoNCE if name == "InfoNCE" else Sigmoid)(temperature=1 / 14.3)
    rows = torch.arange(len(x))
    embeddings = Embeddings({"image": x, "text": y}, {"image": rows, "text": rows}, rows)
    return lambda: objective(embeddings).total


def seconds(call: Callable[[], Tensor], x: Tensor, y: Tensor) -> tuple[float, float, float]:
    """The time of one forward and backward pass by the clock, the processor's time for it, and the loss."""
    x.grad = y.grad = None
    start, worked = time.perf_counter(), time.process_time()
    loss = call()
    loss.backward()
    return time.perf_counter() - start, time.process_time() - worked, loss.item()


def take_turns(names: list[str], n: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    x, y = inputs(n)
    calls = {name: loss_of(name, x, y) for name in names}
    losses = {name: seconds(call, x, y)[-1] for name, call in calls.items()}  # the first pass does not count
    assert max(losses.values()) - min(losses.values()) < 1e-5 * max(losses.values()), losses
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 else names[::-1]:  # neither always comes first
            times[name].append(seconds(calls[name], x, y)[:2])
    return times


def peak(name: str, n: int) -> int:
    """Bytes above the inputs."""
    seconds(loss_of(name, *(small := inputs(64))), *small)  # what is set up once
    x, y = inputs(n)
    with open("/proc/self/statm") as statm:
        before = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    seconds(loss_of(name, x, y), x, y)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def in_own_process(options: argparse.Namespace, *task: str) -> str:
    threads = ["--threads", str(options.threads), "--precision", options.precision]
    command = [sys.executable, __file__, "--task", *task, "--rounds", str(options.rounds), *threads]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def report(options: argparse.Namespace) -> None:
    print(f"{options.threads} threads, float32 products at {options.precision!r} precision, {DIM} components")
    print(
        f"{'objective':9} {'N':>7} {'seconds':>9} {'peer':>9} {'ratio':>7} {'cpu':>7}  {'MB':>7} {'peer':>8} {'ratio':>7}"
    )
    for ours, peer in PEERS.items():
        for n in options.sizes:
            names = [ours, peer] if n < LARGE or options.all else [ours]
            memory = [int(in_own_process(options, "peak", name, str(n))) / 1e6 for name in names]
            times = json.loads(in_own_process(options, "time", ",".join(names), str(n)))
            took = [statistics.median(clock for clock, _ in times[name]) for name in names]
            row = f"{ours:9} {n:>7,} {took[0]:>9.4f} "
            if len(names) == 2:
                rounds = [
                    [mine / other for mine, other in zip(a, b, strict=True)]
                    for a, b in zip(times[ours], times[peer], strict=True)
                ]
                clock, cpu = (statistics.median(ratios) for ratios in zip(*rounds, strict=True))
                row += f"{took[1]:>9.4f} {clock:>7.3f} {cpu:>7.3f}  "
                row += f"{memory[0]:>7.0f} {memory[1]:>8.0f} {memory[0] / memory[1]:>7.3f}"
            else:
                row += f"{'-':>9} {'-':>7} {'-':>7}  {memory[0]:>7.0f} {'-':>8} {'-':>7}"
            print(row, flush=True)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--sizes", type=int, nargs="+", default=[1024, 4096, 16_384, LARGE])
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=torch.get_num_threads())
    p.add_argument("--precision", choices=["highest", "high", "medium"], default="highest")
    p.add_argument("--all", action="store_true", help=f"the peers at N = {LARGE:,} too: some 17 GB of memory")
    p.add_argument("--task", nargs=3, help=argparse.SUPPRESS)
    options = p.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_float32_matmul_precision(options.precision)
    if options.task is None:
        report(options)
        return
    what, names, n = options.task
    if what == "peak":
        print(peak(names, int(n)))
    else:
        print(json.dumps(take_turns(names.split(","), int(n), options.rounds)))


if __name__ == "__main__":
    main()
