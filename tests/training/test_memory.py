"""Free memory goes back to the system."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from multimodal.training.memory import EVERY, FreeMemory


def resident() -> int:
    """In MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20


@pytest.mark.skipif(
    sys.platform != "linux" or "glibc" not in str(os.confstr("CS_GNU_LIBC_VERSION")), reason="glibc alone"
)
def test_holes_in_the_heap_are_returned_every_so_many_steps() -> None:
    callback, trainer = FreeMemory(), SimpleNamespace(global_step=EVERY - 1)
    step: Any = callback.on_train_batch_end
    before = resident()
    blocks = [bytearray(64_000) for _ in range(8_000)]  # below the size that the C library maps on its own
    kept = blocks[::100]  # so that the heap cannot shrink from its end
    full = resident()
    del blocks
    step(trainer, None)
    assert full - before > 400
    assert resident() > full - 50
    trainer.global_step = EVERY
    step(trainer, None)
    assert resident() < before + 60
    assert len(kept) == 80
