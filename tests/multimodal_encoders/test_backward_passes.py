"""No encoder's backward pass damages memory or returns wrong gradients, on any x86 processor.

oneDNN's kernels for processors without AVX-512 run on every newer one too, where ONEDNN_MAX_CPU_ISA asks for them.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

FEW = ["spectrogram", "cnn", "small_cnn", "timm"]
CHECKED = "libc_malloc_debug.so.0"  # of glibc; other systems' allocators check less


def run(*names: str, kernels: str) -> subprocess.CompletedProcess[str]:
    program = Path(__file__).parents[1] / "support" / "backward_passes.py"
    checks = {"MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "85"}
    with suppress(OSError):
        ctypes.CDLL(CHECKED)
        checks["LD_PRELOAD"] = CHECKED
    environment = os.environ | checks | {"ONEDNN_MAX_CPU_ISA": kernels, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-W", "ignore", program, *names], env=environment, capture_output=True, text=True, timeout=500
    )


def test_gradients_are_right_and_memory_is_undamaged_without_avx512() -> None:
    done = run(*FEW, kernels="AVX2")
    assert (done.returncode, done.stdout.split("\n")[-2:]) == (0, ["done", ""]), done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["AVX2", "ALL"])
def test_every_encoder_with_convolutions_on_older_and_on_this_processors_kernels(kernels: str) -> None:
    from backward_passes import MAKERS

    done = run(*MAKERS, kernels=kernels)
    assert (done.returncode, done.stdout.split("\n")[-2:]) == (0, ["done", ""]), done.stdout + done.stderr
