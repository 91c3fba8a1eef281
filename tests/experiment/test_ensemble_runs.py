"""Ensembles of runs are folders like theirs: with their data where all held back the same rows, and only there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from multimodal.cli.main import main
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.registry import create
from multimodal.evaluation.run_evaluation import evaluate
from multimodal.experiment.ensemble_runs import ensemble_runs

MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(config: dict[str, Any], tmp_path: Path) -> MakeRun:
    """A function that writes a run with an untrained model, as training does."""

    def make(name: str, seed: int, **data: Any) -> Path:
        torch.manual_seed(seed)
        run = tmp_path / name
        bags = {modality: create("text", "bag", width=8) for modality in ("text", "words")}
        embedder = Embedder(bags, dim=4 + seed)
        embedder.fit_processors({"text": [f"thing {n}" for n in range(46)], "words": ["odd number", "even number"]})
        embedder.save_pretrained(run / "model")
        (run / "config.yaml").write_text(yaml.safe_dump({**config, "data": {**config["data"], **data}}))
        return run

    return make


def test_an_ensemble_is_evaluated_on_the_rows_that_its_runs_held_back(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [make_run(f"it's {seed}\n", seed) for seed in (0, 1)]  # names that YAML would take for something else
    joined = ensemble_runs(runs, tmp_path / "both", [2, 1])
    assert capsys.readouterr().err == ""
    report = evaluate(tmp_path / "both")
    assert report.to_json()["split"] == "validation"
    assert report.to_json()["rows"] == 6
    expected = np.concatenate(
        [
            Embedder.from_pretrained(run).encode(text=["thing 3"]) * weight**0.5
            for run, weight in zip(runs, (2 / 3, 1 / 3), strict=True)
        ],
        axis=1,
    )
    np.testing.assert_allclose(
        Embedder.from_pretrained(tmp_path / "both").encode(text=["thing 3"]), expected, atol=1e-6
    )
    assert joined.dim == 9


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"split_seed": 7}, "data.split_seed is None in .* and 7 in .*, so that one may have learned what the other"),
        ({"table": "others.csv"}, "data.table is .* and 'others.csv'"),
        ({"table": None}, "does not name the table that it was trained on"),
        ({"columns": {"text": "words", "words": "words"}}, "data.columns is .*, so that they read different values"),
        ({"group": "words"}, "data.group is .* and 'words'"),
    ],
)
def test_runs_of_other_rows_have_no_rows_together(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], data: dict[str, Any], reason: str
) -> None:
    runs = [make_run("a", 0), make_run("b", 1, **data)]
    out = tmp_path / "both"
    assert main(["ensemble", *map(str, runs), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("Embedder of text, words to 9 dimensions")
    assert printed.err.startswith(f"{out} has no data of its own: ")
    assert printed.err.endswith("Evaluate it on rows that no model was trained on: --data.\n")
    assert re.search(reason, printed.err)
    with pytest.raises(MultimodalError, match=r"has no config\.yaml"):
        evaluate(out)


@pytest.mark.parametrize("data", [{"access": "memory"}, {"batch_size": 7}, {"max_rejects": 0.5}])
def test_runs_may_differ_in_what_does_not_choose_rows(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], data: dict[str, Any]
) -> None:
    ensemble_runs([make_run("a", 0), make_run("b", 1, **data)], tmp_path / "both")
    assert capsys.readouterr().err == ""
    assert evaluate(tmp_path / "both").to_json()["rows"] == 6


def test_models_without_a_run_have_no_rows(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [make_run("a", 0), make_run("b", 1) / "model"]
    ensemble_runs(runs, tmp_path / "both")
    assert f"{runs[1]} does not name the table that it was trained on" in capsys.readouterr().err


def test_a_folder_with_files_is_kept(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("a", 0)
    with pytest.raises(MultimodalError, match="is not empty; name a new folder"):
        ensemble_runs([run, run], run)
    (run / "config.yaml").write_text("- a list")
    with pytest.raises(UsageError, match="is not the configuration of a run"):
        ensemble_runs([run, run], tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_the_command_takes_weights(make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(make_run(str(seed), seed)) for seed in (0, 1)]
    assert main(["ensemble", *runs, "--weights", "1", "--out", str(tmp_path / "both")]) == 2
    assert "as many weights above 0, got [1.0]" in capsys.readouterr().err
    assert main(["ensemble", *runs, "--weights", "1", "3", "--out", str(tmp_path / "both")]) == 0
    assert main(["ensemble", *runs, str(tmp_path / "none"), "--out", str(tmp_path / "c")]) == 1
    assert "none does not exist" in capsys.readouterr().err
