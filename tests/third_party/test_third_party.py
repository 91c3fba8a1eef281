"""A third-party package adds a modality, which is trained, evaluated, searched and exported without changes here."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from multimodal.cli.main import main
from multimodal.core import registry

PACKAGE = Path(__file__).parent / "package"
POINTS, COLOURS = 16, ["violet", "blue", "green", "yellow", "orange", "red"]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the package with pip, without network access, into its own folder."""
    source, target = tmp_path / "source", tmp_path / "site"
    shutil.copytree(PACKAGE, source)
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    monkeypatch.syspath_prepend(target)
    # undo the package's registrations after the test
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    monkeypatch.setattr(registry, "_loaded_entry_points", set(registry._loaded_entry_points))
    monkeypatch.delitem(sys.modules, "multimodal_spectra", raising=False)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration for spectra with one peak, whose position is the colour."""
    rng = np.random.default_rng(0)
    with (tmp_path / "spectra.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["spectrum", "name", "split"])
        for number in range(240):
            colour = number % len(COLOURS)
            centre = (colour + 0.5) / len(COLOURS) * POINTS
            heights = np.exp(-((np.arange(POINTS) - centre) ** 2) / 3) + rng.normal(0, 0.05, POINTS)
            split = "train" if number < 180 else "validation" if number < 210 else "test"
            table.writerow([" ".join(f"{height:.4f}" for height in heights), COLOURS[colour], split])
    settings = {
        "data": {
            "table": str(tmp_path / "spectra.csv"),
            "columns": {"spectrum": "spectrum", "text": "name"},
            "group": "name",
            "split": "split",
            "batch_size": 6,
        },
        "model": {
            "dim": 16,
            "encoders": {
                "spectrum": {"class_path": "mlp", "init_args": {"width": 24}},
                "text": {
                    "class_path": "transformer",
                    "init_args": {"width": 16, "layers": 1, "heads": 2, "vocab_size": 60},
                },
            },
            "heads": {"spectrum": "mlp"},
            "layer_decay": {"spectrum": 0.9},
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
        },
        "trainer": {
            "max_steps": 60,
            "val_check_interval": 60,
            "check_val_every_n_epoch": None,
            "enable_progress_bar": False,
        },
    }
    path = tmp_path / "spectra.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.mark.usefixtures("installed")
def test_its_modality_works_like_a_built_in_one(
    config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    assert main(["encoders", "--modality", "spectrum", "--json"]) == 0
    (known,) = json.loads(capfd.readouterr().out)
    assert known["class"] == "multimodal_spectra.SpectrumMLP"
    assert main(["fit", "--config", str(config), "--run", run]) == 0
    capfd.readouterr()
    assert main(["evaluate", run, "--json"]) == 0
    retrieval = json.loads(capfd.readouterr().out)["pairs"]["spectrum->text"]
    assert retrieval["recall@1"] > 0.8  # chance: 1 of 6
    assert main(["embed", run, "--split", "test", "--out", f"{run}/embeddings"]) == 0
    assert main(["index", f"{run}/embeddings", "--out", f"{run}/index"]) == 0
    capfd.readouterr()
    peak_in_the_blue = " ".join(f"{np.exp(-((point - 4) ** 2) / 3):.3f}" for point in range(POINTS))
    assert (
        main(["search", run, f"{run}/index", "--spectrum", peak_in_the_blue, "--target", "text", "-k", "1", "--json"])
        == 0
    )
    (hit,) = json.loads(capfd.readouterr().out)["hits"]
    assert hit["metadata"]["name"] == "blue"
    assert main(["export", run, "--to", "torch-export", "--modality", "spectrum"]) == 0
