"""Processor cores and fast number formats of this machine."""

from __future__ import annotations

import os
from typing import Literal

import torch

Precision = Literal["bf16-mixed", "32-true"]


def fast_precision() -> Precision:
    """Return ``"bf16-mixed"`` if the accelerator or processor has instructions for bfloat16 products, else ``"32-true"``."""
    if torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if fast else "32-true"


def fast_device() -> torch.device:
    """Return the GPU of this machine, or its processor if it has none that torch can use."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_cores(workers: int) -> None:
    """Let torch use all cores, but one if data workers need it, unless ``OMP_NUM_THREADS`` is set.

    With one thread too many, every parallel loop waits for a thread that is not scheduled: steps get 16 times slower.

    Args:
        workers: processes that read data while torch computes.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, cores() - (workers > 0)))
