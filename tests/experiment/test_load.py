"""What a configuration makes shows itself in three lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import multimodal as mm


def test_an_experiment_shows_its_model_data_and_trainer(config_file: Path, tmp_path: Path) -> None:
    experiment = mm.load_config(config_file, {"run": str(tmp_path / "run"), "trainer": {"precision": "32-true"}})
    model, data, trainer = repr(experiment).splitlines()
    assert model == "model: EmbedderModule with InfoNCE: Embedder of text, words to 8 dimensions"
    assert data == f"data: {experiment.data!r}"
    assert trainer == f"trainer: 6 steps in 32-true on 1 cpu, in {tmp_path / 'run'}"


@pytest.mark.parametrize(("epochs", "length"), [(2, "2 epochs"), (-1, "steps without a limit")])
def test_a_trainer_without_steps_shows_its_epochs(config_file: Path, epochs: int, length: str) -> None:
    experiment = mm.load_config(config_file, {"trainer": {"max_steps": -1, "max_epochs": epochs}})
    assert repr(experiment).splitlines()[2].startswith(f"trainer: {length} in ")


@pytest.mark.parametrize("objective", ["MaskedTokens", "multimodal.objectives.SkipGram", {"class_path": "CBOW"}])
def test_an_objective_of_texts_alone_makes_a_module_of_pretraining(tmp_path: Path, objective: Any) -> None:
    config = {
        "run": str(tmp_path / "run"),
        "data": {"table": "glyphs", "columns": {"text": "name"}, "split": "split"},
        "model": {"encoders": {"text": {"class_path": "transformer"}}, "objective": objective},
        "trainer": {"max_steps": 1},
    }
    (tmp_path / "texts.yaml").write_text(yaml.safe_dump(config))
    assert isinstance(mm.load_config(tmp_path / "texts.yaml").model, mm.TextPretrainingModule)
