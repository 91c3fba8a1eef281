"""Return free memory of the C library's heap to the system."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path


class HeapTrimmer:
    """Keeps the C library's heap from growing while pieces of work of changing sizes follow one another.

    Their tensors leave holes that later tensors do not fit into. With glibc's heap, free pages are returned to the system
    whenever the process has grown by ``growth`` since the first piece or since the last time; the next piece is slower.

    Args:
        growth: in bytes.

    Examples:
        >>> trimmer = HeapTrimmer(growth=1 << 30)
        >>> for _ in range(3):
        ...     trimmer.trim_if_grown()
    """

    def __init__(self, growth: int = 256 << 20) -> None:
        self.growth = growth
        self._bound: int | None = None

    def trim_if_grown(self) -> None:
        """Check the size of the process after a piece of work, and trim the heap if it has grown."""
        size = resident_bytes()
        if self._bound is None:
            self._bound = size + self.growth
        elif size > self._bound:
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
            if trim is not None:
                trim(0)
            self._bound = max(self._bound, resident_bytes() + self.growth)  # what is in use has grown


def resident_bytes() -> int:
    """Return the bytes of this process that are in memory; 0 if the system does not report it."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0
