"""What the machine is good at."""

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
        (True, False, True, True, "32-true"),  # the accelerator computes, whatever the processor can
    ],
)
def test_bfloat16_is_for_machines_with_instructions_for_it(
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


@pytest.mark.skipif(ALLOWED is None, reason="this system binds no process to cores")
@pytest.mark.parametrize("given", [1, 2])
def test_the_cores_are_those_this_process_may_use_and_torch_leaves_one(
    monkeypatch: pytest.MonkeyPatch, given: int
) -> None:
    assert ALLOWED is not None
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    allowed, threads = ALLOWED(0), torch.get_num_threads()
    if len(allowed) < given:
        pytest.skip("too few cores")
    os.sched_setaffinity(0, sorted(allowed)[:given])
    try:
        assert hardware.cores() == given
        hardware.reserve_one_core()
        assert torch.get_num_threads() == 1  # of two, one is left; of one, it is used
    finally:
        os.sched_setaffinity(0, allowed)
        torch.set_num_threads(threads)


def test_without_a_binding_to_cores_all_of_them_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert hardware.cores() == 6


@pytest.mark.parametrize(("environment", "threads"), [({}, 5), ({"OMP_NUM_THREADS": "3"}, None)])
def test_torch_takes_all_cores_but_one_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], threads: int | None
) -> None:
    asked: list[int] = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(hardware, "cores", lambda: 6)
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    hardware.reserve_one_core()
    assert asked == ([] if threads is None else [threads])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what is freed so")
def test_holes_in_the_heap_go_back_to_the_system() -> None:
    others = HeapTrimmer(-1)  # holes that other tests left would take the blocks, and nothing would grow
    for _ in range(2):
        others.piece_done()
    heap = HeapTrimmer(1 << 20)
    heap.piece_done()
    blocks = [bytes([1]) * 60_000 for _ in range(6000)]
    last = blocks[-1]  # above the hole
    blocks.clear()
    before = resident_bytes()
    heap.piece_done()
    assert resident_bytes() < before - 100e6
    assert len(last) == 60_000


@pytest.mark.parametrize(("cuda", "device"), [(True, "cuda"), (False, "cpu")])
def test_the_gpu_is_the_fast_device_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert hardware.fast_device() == torch.device(device)
