"""A damaged checkpoint is one clear line, before anything is built for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from multimodal.cli.main import main
from multimodal.core.errors import MultimodalError
from multimodal.experiment.checkpoints import check_readable

FIXTURES = Path(__file__).parents[1] / "fixtures" / "v0_1"


def damage_weights(path: Path) -> None:
    content = bytearray(path.read_bytes())
    weight = torch.load(path, weights_only=True)["state_dict"]["embedder.heads.image.weight"]
    at = bytes(content).index(weight.numpy().tobytes())
    content[at + 3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "command", [["validate", "--ckpt_path", "best"], ["fit", "--ckpt_path", "last"], ["fit", "--ckpt_path", "PATH"]]
)
def test_the_commands_refuse_a_damaged_checkpoint(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(FIXTURES, tmp_path / "v0_1")
    monkeypatch.chdir(tmp_path / "v0_1")
    path = Path("trained") / "checkpoints" / ("best.ckpt" if "best" in command else "last.ckpt")
    damage_weights(path)
    command = [str(path) if word == "PATH" else word for word in command]
    assert main([command[0], "--config", "trained/config.yaml", *command[1:]]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    said = f"{path} is damaged or not a checkpoint (its contents are not those that were written). Use "
    assert said in line


def test_a_checkpoint_that_torch_cannot_read_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"weights": torch.arange(1000.0)}, path)
    content, random, refused = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(100):
        changed = bytearray(content)
        changed[-1 - int(random.integers(300))] ^= 1 << int(random.integers(8))  # in the list of the archive's members
        path.write_bytes(changed)
        try:
            check_readable(path)
        except MultimodalError as error:
            message = str(error)
            assert message.startswith(f"The checkpoint {path} is damaged or not a checkpoint (")
            assert "\n" not in message
            refused += 1
        else:
            assert torch.load(path, weights_only=True)["weights"].equal(torch.arange(1000.0))
    assert refused > 20


def test_a_checkpoint_with_classes_of_its_own_is_left_to_its_reader(tmp_path: Path) -> None:
    torch.save({"path": Path("x")}, tmp_path / "last.ckpt")
    check_readable(tmp_path / "last.ckpt")
