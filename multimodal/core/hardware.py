"""What this machine is good at."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Literal

import torch

Precision = Literal["bf16-mixed", "32-true"]


def fast_precision() -> Precision:
    """``"bf16-mixed"`` where the accelerator or processor has instructions for bfloat16 products, else ``"32-true"``."""
    if torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if fast else "32-true"


def cores() -> int:
    """The processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def leave_a_core() -> None:
    """Let torch use all cores but one, unless ``OMP_NUM_THREADS`` says otherwise.

    A thread too many makes every parallel loop wait for the one that was not scheduled: steps get 16 times slower.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, cores() - 1))


class Heap:
    """Keeps the C library's heap from growing while pieces of work of ever other sizes come one after another.

    Their tensors leave holes that nothing fits into again. Where that is glibc's heap, its free pages go back to the system
    whenever the process has grown by so much since the first piece, or since the last time; the next piece is slower for it.

    Args:
        growth: in bytes.
    """

    def __init__(self, growth: int = 256 << 20) -> None:
        self.growth = growth
        self._bound: int | None = None

    def piece_done(self) -> None:
        size = resident()
        if self._bound is None:
            self._bound = size + self.growth
        elif size > self._bound:
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
            if trim is not None:
                trim(0)
            self._bound = max(self._bound, resident() + self.growth)  # what is in use has grown


def resident() -> int:
    """The bytes of this process that are in memory; 0 where the system does not tell."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0
