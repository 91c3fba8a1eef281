"""What a benchmark runs on: the ``--device`` and ``--json`` options, clocks, peak memory, and the machine's name.

    python benchmarks/device.py [--device cuda]

prints the description of the machine that every entry of the JSON file has.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

Device = Literal["cpu", "cuda"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """``--device`` and ``--json``."""
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="what runs the models (default: cpu)")
    parser.add_argument("--json", type=Path, help="append the figures to this file, as one line")


def machine(device: Device) -> dict[str, Any]:
    """The card or processor, and the versions that matter."""
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if device == "cuda":
        memory = torch.cuda.get_device_properties(0).total_memory
        found |= {"cuda": torch.version.cuda, "gpu_memory_gb": round(memory / 1e9, 1)}
    return found


def record(options: argparse.Namespace, figures: Any) -> None:
    """Append what was measured to the file of ``--json``, with the command and the machine."""
    if options.json is None:
        return
    entry = {
        "benchmark": Path(sys.argv[0]).stem,
        "command": f"python {' '.join(sys.argv)}",
        "settings": {n: v for n, v in vars(options).items() if n != "json" and not isinstance(v, Path)},
        "float32_products": torch.get_float32_matmul_precision(),  # "highest": float32; "high": TF32 on a GPU
        "machine": machine(options.device),
        "figures": figures,
    }
    with options.json.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def synchronize(device: Device) -> None:
    """Wait for what a GPU has been asked to do; a CPU has done it."""
    if device == "cuda":
        torch.cuda.synchronize()


def clock(device: Device) -> float:
    """Seconds, after all that was asked for is done."""
    synchronize(device)
    return time.perf_counter()


def product_speed(device: Device, dtype: torch.dtype) -> float:
    """FLOPs a second of a large matrix product, the best of ten."""
    edge = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(edge, edge, device=device).to(dtype) for _ in range(2))
    taken = []
    for _ in range(10):
        start = clock(device)
        _ = a @ b
        taken.append(clock(device) - start)
    return 2 * edge**3 / min(taken)


def gpu_peak(work: Callable[[], object]) -> int:
    """Bytes that a piece of work takes on the GPU at most, above what is allocated before it."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    print(json.dumps(machine(parser.parse_args().device), indent=1))


if __name__ == "__main__":
    main()
