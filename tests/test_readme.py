"""The code and commands of the README work as printed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multimodal.cli.main import COMMANDS, main

# the datasets library does not close files
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed file")

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """The ``multimodal ...`` lines of the README, split into words."""
    joined = "\n".join(blocks("sh") + blocks("console")).replace("\\\n", " ")
    return [shlex.split(line)[1:] for line in re.findall(r"^(?:\$ )?(multimodal .*)$", joined, re.MULTILINE)]


@pytest.fixture
def in_a_folder_with_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the README's ``pairs.csv``, of 340 pictures that differ, the working folder's."""
    monkeypatch.chdir(tmp_path)
    rng, rows = np.random.default_rng(0), ["picture,title"]
    for n in range(340):
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).resize((32, 32)).save(f"{n}.png")
        rows.append(f"{n}.png,{rng.choice(['red', 'blue', 'old'])} cup of {rng.choice(10**6)} and {rng.choice(10**6)}")
    Path("pairs.csv").write_text("\n".join(rows) + "\n")


@pytest.mark.usefixtures("in_a_folder_with_pairs")
def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = blocks("python")
    assert example.count("max_steps=500") == 1
    short = example.replace("max_steps=500", "max_steps=2, enable_progress_bar=False")
    assert short.count('mm.create("image", "cnn")') == 1
    short = short.replace('"cnn")', '"cnn", stem="standard")')  # a tenth of the work
    exec(compile(short, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "text -> image" in printed
    assert len(re.findall(r"^.*cup of \d+ and \d+", printed, re.MULTILINE)) == 5


@pytest.mark.usefixtures("in_a_folder_with_pairs")
def test_the_commands_run(capsys: pytest.CaptureFixture[str]) -> None:
    (config,) = blocks("yaml")
    assert config.count("max_steps: 500") == 1
    short = config.replace("max_steps: 500", "max_steps: 2, enable_progress_bar: false")
    assert short.count("{class_path: cnn}") == 1
    Path("pairs.yaml").write_text(short.replace("{class_path: cnn}", "{class_path: cnn, init_args: {stem: standard}}"))
    Path("queries.txt").write_text("a red cup\n")
    (block,) = [block for block in blocks("sh") if "multimodal" in block]
    for line in block.splitlines():
        assert main(shlex.split(line, comments=True)[1:]) == 0, line
    assert len(re.findall(r"cup of \d+ and \d+", capsys.readouterr().out)) == 10


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
