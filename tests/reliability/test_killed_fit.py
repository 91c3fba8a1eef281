"""``fit`` killed at random moments keeps a whole checkpoint, and resumes to the weights of a run that was not killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

KILLS = 6
pytestmark = pytest.mark.slow


@pytest.fixture
def config(tmp_path: Path) -> Path:
    rows = [f"{n},thing {n},number {n % 7},{'train' if n < 80 else 'validation'}" for n in range(100)]
    (tmp_path / "t.csv").write_text("\n".join(["key,name,words,split", *rows]) + "\n")
    encoder = {"class_path": "bag", "init_args": {"width": 64, "vocab_size": 20_000}}  # checkpoints of some 30 MB
    settings = {
        "data": {"table": str(tmp_path / "t.csv"), "columns": {"text": "name", "words": "words"}, "split": "split"},
        "model": {"dim": 16, "encoders": {"text": encoder, "words": encoder | {"class_path": "text.bag"}}},
        "trainer": {
            "max_epochs": 4, "val_check_interval": 1, "accelerator": "cpu", "precision": 32,
            "enable_progress_bar": False, "num_sanity_val_steps": 0,
        },
    }  # fmt: skip
    settings["data"] |= {"batch_size": 8}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "c.yaml"


def start(config: Path, run: Path, temporary: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "multimodal", "fit", "--config", str(config), "--run", str(run)]
    environment = os.environ | {"TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--ckpt_path", "last"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize("temporary", ["same", "/dev/shm"])
def test_a_killed_training_resumes_to_the_same_weights(temporary: str, config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "temporary" if temporary == "same" else Path(temporary) / f"killed-fit-{os.getpid()}"
    if not folder.parent.is_dir():
        pytest.skip(f"there is no {folder.parent} here")
    folder.mkdir()
    try:
        whole = start(config, tmp_path / "whole", folder)
        error = whole.communicate(timeout=300)[1]
        assert whole.returncode == 0, error
        chance, run, kills, checkpoints = random.Random(0), tmp_path / "cut", 0, 0
        last = run / "checkpoints" / "last.ckpt"
        for _ in range(KILLS):
            process = start(config, run, folder)
            before = last.stat().st_mtime_ns if last.exists() else 0
            deadline = time.monotonic() + 120
            while process.poll() is None and time.monotonic() < deadline:  # until it writes, then a random moment
                if last.exists() and last.stat().st_mtime_ns != before:
                    break
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.3))
            ended = process.poll() is not None
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += not ended
            weights(run)  # whole, not truncated
            checkpoints += 1
        final = start(config, run, folder)
        error = final.communicate(timeout=300)[1]
        assert final.returncode == 0, error
        torch.testing.assert_close(weights(run), weights(tmp_path / "whole"), rtol=0, atol=0)
        print(f"{kills} kills with temporary folder {folder}: {checkpoints} whole checkpoints, resumed bit for bit")
        assert not list(folder.rglob("*.ckpt*"))
        assert sorted(path.name for path in last.parent.iterdir()) == ["best.ckpt", "last.ckpt"]
    finally:
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()


def test_sigterm_ends_the_command_with_143_and_a_checkpoint(config: Path, tmp_path: Path) -> None:
    process = start(config, tmp_path / "run", tmp_path)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.terminate()
    error = process.communicate(timeout=120)[1].decode()
    assert process.returncode == 128 + signal.SIGTERM
    assert "by SIGTERM" in error
    assert "Resume it with --ckpt_path last" in error
    assert torch.load(last, weights_only=True)["global_step"] > 0
