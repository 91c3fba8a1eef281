"""The code and commands of the README work as printed."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from multimodal import Embedder
from multimodal.cli.main import COMMANDS, main
from multimodal.core import registry
from multimodal.datasets.glyphs import Glyphs

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """The ``multimodal ...`` lines of the README, split into words."""
    joined = "\n".join(blocks("sh") + blocks("console")).replace("\\\n", " ")
    return [shlex.split(line)[1:] for line in re.findall(r"^(?:\$ )?(multimodal .*)$", joined, re.MULTILINE)]


def test_the_example_encoder_trains_and_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = [block for block in blocks("python") if "mm.register" in block]
    (fit,) = [words for words in commands() if words[0] == "fit" and "profiles.ProfileEncoder" in words]
    (evaluate,) = [words for words in commands() if words[0] == "evaluate" and "runs/profiles" in words]
    (tmp_path / "profiles.py").write_text(example)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    short = ["--trainer.max_steps", "2", "--trainer.val_check_interval", "1", "--data.batch_size", "8"]
    assert main([*fit, *short, "--trainer.enable_progress_bar", "false"]) == 0
    assert main(evaluate) == 0
    assert "text -> profile" in capsys.readouterr().out
    del sys.modules["profiles"], registry._registered["profile", "mlp"]  # as in a new process
    embedder = Embedder.from_pretrained("runs/profiles", ["profile"])
    vectors = embedder.encode(profile=[Glyphs().value(row, "image") for row in range(3)])
    assert vectors.shape == (3, 256)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_the_example_objective_trains(tmp_path: Path, small_config: Path) -> None:
    page = (ROOT / "docs" / "objectives.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```yaml\n(model:\n  objective:.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "objective.yaml").write_text(example)
    configs = ["--config", str(small_config), "--config", str(tmp_path / "objective.yaml")]
    run = ["--run", str(tmp_path / "run"), "--model.dim", "256", "--trainer.max_steps", "2"]
    assert main(["fit", *configs, *run, "--trainer.val_check_interval", "1"]) == 0
    log = next((tmp_path / "run").rglob("metrics.csv")).read_text()
    assert {"train/contrastive/64/image-text", "train/spread"} <= set(log.splitlines()[0].split(","))


def test_every_command_in_the_readme_exists() -> None:
    assert commands()
    assert {words[0] for words in commands()} <= set(COMMANDS)


def test_every_command_is_named_in_the_readme() -> None:
    assert [name for name in COMMANDS if f"`{name}" not in README and f" {name}" not in README] == []
