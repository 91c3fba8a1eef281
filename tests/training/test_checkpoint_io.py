"""A checkpoint is replaced only by a whole one, next to its path."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from multimodal.core.errors import MultimodalError
from multimodal.training.checkpoint_io import DurableCheckpointIO, checkpoint_to_resume


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_a_checkpoint_is_written_without_the_temporary_folder(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    monkeypatch.setattr("tempfile.tempdir", None)
    DurableCheckpointIO().save_checkpoint({"weights": torch.arange(3)}, checkpoints / "last.ckpt")
    assert torch.load(checkpoints / "last.ckpt", weights_only=True)["weights"].tolist() == [0, 1, 2]
    assert [path.name for path in checkpoints.iterdir()] == ["last.ckpt"]


def test_a_full_disk_leaves_the_previous_checkpoint(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last = checkpoints / "last.ckpt"
    io = DurableCheckpointIO()
    io.save_checkpoint({"step": 1}, last)

    def full(checkpoint: Any, file: Any) -> None:
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("multimodal.training.checkpoint_io.torch.save", full)
    with pytest.raises(OSError, match="No space left"):
        io.save_checkpoint({"step": 2}, last)
    assert torch.load(last, weights_only=True) == {"step": 1}
    assert [path.name for path in checkpoints.iterdir()] == ["last.ckpt"]


def test_a_missing_last_checkpoint_names_the_best_one(checkpoints: Path) -> None:
    run = checkpoints.parent
    assert checkpoint_to_resume(run) is None
    (checkpoints / "best.ckpt").touch()
    with pytest.raises(MultimodalError, match=r"last\.ckpt is missing\. Resume from .*best\.ckpt instead"):
        checkpoint_to_resume(run)
    (checkpoints / "last.ckpt").touch()
    assert checkpoint_to_resume(run) == str(checkpoints / "last.ckpt")
