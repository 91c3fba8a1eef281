"""Keep the C library's heap from growing."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path


class HeapTrimmer:
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
        size = resident_bytes()
        if self._bound is None:
            self._bound = size + self.growth
        elif size > self._bound:
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
            if trim is not None:
                trim(0)
            self._bound = max(self._bound, resident_bytes() + self.growth)  # what is in use has grown


def resident_bytes() -> int:
    """The bytes of this process that are in memory; 0 where the system does not tell."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0
