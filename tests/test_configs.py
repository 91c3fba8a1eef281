"""The configurations that ship: all can be read, and the demo's reaches what it is said to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from multimodal.cli.main import main

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_trains_a_step_as_it_stands(config: Path, tmp_path: Path) -> None:
    table = Path(yaml.safe_load(config.read_text())["data"]["table"])
    if ".." in table.parts and not table.exists():
        pytest.skip(f"{table} is not there")
    short = ["--trainer.max_steps", "1", "--trainer.val_check_interval", "1", "--trainer.enable_progress_bar", "false"]
    assert main(["fit", "--config", str(config), "--run", str(tmp_path / "run"), *short]) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("name", "at_1", "at_5"), [("glyphs", 0.50, 0.75), ("glyphs_full", 0.62, 0.80)])
def test_characters_never_seen_are_found_by_their_names(
    name: str, at_1: float, at_5: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config,) = [path for path in CONFIGS if path.stem == name]
    assert main(["fit", "--config", str(config), "--run", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path), "--split", "unseen_characters", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)["pairs"]["text->image"]
    assert measured["recall@1"] >= at_1
    assert measured["recall@5"] >= at_5
