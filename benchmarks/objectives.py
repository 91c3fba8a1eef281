"""Time and memory of the contrastive objectives against those of open_clip, on the same vectors.

InfoNCE against ClipLoss and Sigmoid against SigLipLoss: the forward and backward pass over two modalities of N unit
vectors of 512 components in float32, every row of a group of its own.

On a CPU each figure is taken in processes of their own: the time in one in which the two take turns (the medians of the
rounds and of their ratios), the peak memory in one for each (the process's highest resident size less its size with the
inputs in place). Next to the ratio of the times by the clock stands that of the processor's time, which other programs on
the machine disturb less. On a GPU all is measured in one process: the time between two synchronizations, the memory as
torch's allocator counts it, above the inputs. A loss that does not fit is reported as "no memory".

    python benchmarks/objectives.py [--sizes 1024 4096 16384] [--rounds 5] [--threads 1] [--all]
    python benchmarks/objectives.py --device cuda [--precision high]

At N = 32,768 the losses of open_clip need some 17 GB; on a CPU they are left out there unless --all is given.
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
from typing import Any

import torch
from device import Device, add_options, clock, gpu_peak, record
from open_clip.loss import ClipLoss, SigLipLoss
from torch import Tensor
from torch.nn import functional

from multimodal.core.embeddings import Embeddings
from multimodal.objectives import InfoNCE, Sigmoid

DIM = 512
LARGE = 32_768  # where the peers need --all on a CPU
CPU_SIZES, GPU_SIZES = [1024, 4096, 16_384, LARGE], [8192, 16_384, 32_768, 65_536, 131_072]
PEERS = {"InfoNCE": "ClipLoss", "Sigmoid": "SigLipLoss"}


def inputs(n: int, device: Device = "cpu") -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    x, y = (functional.normalize(torch.randn(n, DIM)).to(device).requires_grad_() for _ in range(2))
    return x, y


def loss_of(name: str, x: Tensor, y: Tensor) -> Callable[[], Tensor]:
    """A call that computes the loss; its own parameters are learned too."""
    log_scale = torch.tensor(14.3, device=x.device).log().requires_grad_()
    bias = torch.tensor(-10.0, device=x.device, requires_grad=True)
    if name == "ClipLoss":
        return lambda: ClipLoss()(x, y, log_scale.exp())
    if name == "SigLipLoss":
        return lambda: SigLipLoss()(x, y, log_scale.exp(), bias)
    objective = (InfoNCE if name == "InfoNCE" else Sigmoid)(temperature=1 / 14.3).to(x.device)
    rows = torch.arange(len(x), device=x.device)
    embeddings = Embeddings({"image": x, "text": y}, {"image": rows, "text": rows}, rows)
    return lambda: objective(embeddings).total


def seconds(call: Callable[[], Tensor], x: Tensor, y: Tensor) -> tuple[float, float, float]:
    """The time of one forward and backward pass by the clock, the processor's time for it, and the loss."""
    device: Device = "cuda" if x.is_cuda else "cpu"
    x.grad = y.grad = None
    start, worked = clock(device), time.process_time()
    loss = call()
    loss.backward()
    return clock(device) - start, time.process_time() - worked, loss.item()


def take_turns(names: list[str], n: int, rounds: int, device: Device = "cpu") -> dict[str, list[tuple[float, float]]]:
    x, y = inputs(n, device)
    calls = {name: loss_of(name, x, y) for name in names}
    losses = {name: seconds(call, x, y)[-1] for name, call in calls.items()}  # the first pass does not count
    allowed = 1e-5 if torch.get_float32_matmul_precision() == "highest" else 1e-3
    assert max(losses.values()) - min(losses.values()) < allowed * max(losses.values()), losses
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 else names[::-1]:  # neither always comes first
            times[name].append(seconds(calls[name], x, y)[:2])
    return times


def peak(name: str, n: int) -> int:
    """Bytes above the inputs, of this process."""
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


def measured_on_cpu(names: list[str], n: int, options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {"memory": {}, "times": {}}
    names = names if n < LARGE or options.all else names[:1]
    for name in names:
        found["memory"][name] = int(in_own_process(options, "peak", name, str(n)))
    found["times"] = json.loads(in_own_process(options, "time", ",".join(names), str(n)))
    return found


def measured_on_gpu(names: list[str], n: int, options: argparse.Namespace) -> dict[str, Any]:
    memory: dict[str, int] = {}
    for name in names:
        x, y = inputs(64, "cuda")
        seconds(loss_of(name, x, y), x, y)  # what is set up once
        x, y = inputs(n, "cuda")
        try:
            memory[name] = gpu_peak(lambda name=name, x=x, y=y: seconds(loss_of(name, x, y), x, y))
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
    return {"memory": memory, "times": take_turns([n for n in names if n in memory], n, options.rounds, "cuda")}


def row_of(n: int, ours: str, peer: str, found: dict[str, Any]) -> dict[str, Any]:
    """The medians, in seconds, bytes and ratios of ours to the peer's; None where the peer was not measured."""
    row: dict[str, Any] = {"objective": ours, "n": n, "peer": peer}
    for name, key in ((ours, ""), (peer, "peer_")):
        times = found["times"].get(name)
        row[f"{key}seconds"] = None if times is None else statistics.median(by_clock for by_clock, _ in times)
        row[f"{key}bytes"] = found["memory"].get(name)
    row["ratio"] = row["processor_ratio"] = None
    if peer in found["times"]:
        turns = list(zip(found["times"][ours], found["times"][peer], strict=True))
        row["ratio"], row["processor_ratio"] = (statistics.median(a[i] / b[i] for a, b in turns) for i in (0, 1))
    return row


def report(options: argparse.Namespace) -> None:
    sizes = options.sizes or (CPU_SIZES if options.device == "cpu" else GPU_SIZES)
    measured = measured_on_cpu if options.device == "cpu" else measured_on_gpu
    print(f"{options.threads} threads, float32 products at {options.precision!r} precision, {DIM} components")
    print(
        f"{'objective':9} {'N':>7} {'seconds':>9} {'peer':>9} {'ratio':>7} {'cpu':>7}  {'MB':>7} {'peer':>9} {'ratio':>7}"
    )
    rows = []
    for ours, peer in PEERS.items():
        for n in sizes:
            row = row_of(n, ours, peer, measured([ours, peer], n, options))
            rows.append(row)
            line = f"{ours:9} {n:>7,} {row['seconds']:>9.4f} "
            if row["ratio"] is None:
                none = "-" if options.device == "cpu" else "no memory"
                line += f"{'-':>9} {'-':>7} {'-':>7}  {row['bytes'] / 1e6:>7.0f} {none:>9} {'-':>7}"
            else:
                line += f"{row['peer_seconds']:>9.4f} {row['ratio']:>7.3f} {row['processor_ratio']:>7.3f}  "
                line += f"{row['bytes'] / 1e6:>7.0f} {row['peer_bytes'] / 1e6:>9.0f}"
                line += f" {row['bytes'] / row['peer_bytes']:>7.3f}"
            print(line, flush=True)
    record(options, rows)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--sizes", type=int, nargs="+", help=f"N; by default {CPU_SIZES}, on a GPU {GPU_SIZES}")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=torch.get_num_threads())
    p.add_argument(
        "--precision",
        choices=["highest", "high", "medium"],
        default="highest",
        help='of float32 products; "high": TF32',
    )
    p.add_argument("--all", action="store_true", help=f"the peers at N = {LARGE:,} on a CPU too: some 17 GB of memory")
    p.add_argument("--task", nargs=3, help=argparse.SUPPRESS)
    add_options(p)
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
