"""Cores and number formats of the machine, and the memory that the heap returns."""

from __future__ import annotations

import os
import platform

import pytest
import torch

from multimodal.core import hardware
from multimodal.training.heap import HeapTrimmer, resident_bytes

ALLOWED = getattr(os, "sched_getaffinity", None)  # Linux


@pytest.mark.parametrize(
    ("cuda", "cuda_bf16", "avx512", "amx", "precision"),
    [
        (False, False, False, False, "32-true"),
        (False, True, False, False, "32-true"),
        (False, False, True, False, "bf16-mixed"),
        (False, False, False, True, "bf16-mixed"),
        (True, True, False, False, "bf16-mixed"),
        (True, False, True, True, "32-true"),  # the accelerator decides, not the processor
    ],
)
def test_bfloat16_is_fast_only_with_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, cuda_bf16: bool, avx512: bool, amx: bool, precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    # emulated support, which torch counts by default, is slow
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or cuda_bf16
    )
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert hardware.fast_precision() == precision


@pytest.mark.skipif(ALLOWED is None, reason="this system does not bind processes to cores")
@pytest.mark.parametrize(("count", "workers", "threads"), [(1, 0, 1), (1, 2, 1), (2, 0, 2), (2, 1, 1), (2, 4, 1)])
def test_only_allowed_cores_count_and_workers_get_one(
    monkeypatch: pytest.MonkeyPatch, count: int, workers: int, threads: int
) -> None:
    assert ALLOWED is not None
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    allowed, before = ALLOWED(0), torch.get_num_threads()
    if len(allowed) < count:
        pytest.skip("too few cores")
    os.sched_setaffinity(0, sorted(allowed)[:count])
    try:
        assert hardware.cores() == count
        hardware.share_cores(workers)
        assert torch.get_num_threads() == threads
    finally:
        os.sched_setaffinity(0, allowed)
        torch.set_num_threads(before)


def test_all_cores_count_where_processes_cannot_be_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert hardware.cores() == 6


@pytest.mark.parametrize(("environment", "threads"), [({}, 5), ({"OMP_NUM_THREADS": "3"}, None)])
def test_torch_leaves_a_core_to_workers_unless_the_environment_sets_threads(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], threads: int | None
) -> None:
    requested: list[int] = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(hardware, "cores", lambda: 6)
    monkeypatch.setattr(torch, "set_num_threads", requested.append)
    hardware.share_cores(workers=1)
    assert requested == ([] if threads is None else [threads])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed memory in this way")
def test_holes_in_the_heap_are_returned_to_the_system() -> None:
    others = HeapTrimmer(-1)  # else the blocks would fill holes of other tests, and the heap would not grow
    for _ in range(2):
        others.trim_if_grown()
    heap = HeapTrimmer(1 << 20)
    heap.trim_if_grown()
    blocks = [bytes([1]) * 60_000 for _ in range(6000)]
    last = blocks[-1]  # above the hole
    blocks.clear()
    before = resident_bytes()
    heap.trim_if_grown()
    assert resident_bytes() < before - 100e6
    assert len(last) == 60_000


@pytest.mark.parametrize(("cuda", "device"), [(True, "cuda"), (False, "cpu")])
def test_the_gpu_is_the_fast_device_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert hardware.fast_device() == torch.device(device)
