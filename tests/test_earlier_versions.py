"""Models, runs and configurations of version 0.1 keep working; fixtures/v0_1/README.md describes them."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from multimodal import Embedder, Index
from multimodal.cli.main import main

FIXTURES = Path(__file__).parent / "fixtures" / "v0_1"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text())
# Checkpoints contain the path where they were written; Lightning warns that they have moved.
MOVED = pytest.mark.filterwarnings("ignore:The dirpath has changed")


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a copy of the fixtures the working directory, as the paths in them are relative."""
    folder = tmp_path / "v0_1"
    shutil.copytree(FIXTURES, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MULTIMODAL_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def old_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the fixtures the working directory, for tests that only read."""
    monkeypatch.chdir(FIXTURES)


@pytest.mark.usefixtures("old_files")
@pytest.mark.parametrize("model", ["exported", "pretrained", "trained"])
def test_a_saved_model_computes_the_recorded_vectors(model: str) -> None:
    embedder = Embedder.from_pretrained(model)
    recorded = EXPECTED["vectors"][model]
    assert embedder.modalities == list(recorded)
    for modality, entry in recorded.items():
        found = embedder.encode(**{modality: entry["values"]})
        np.testing.assert_allclose(found, np.array(entry["vectors"]), atol=1e-5, err_msg=modality)


@pytest.mark.usefixtures("old_files")
@pytest.mark.parametrize("modality", ["title", "audio"])
def test_one_modality_of_a_saved_model_computes_the_recorded_vectors(modality: str) -> None:
    entry = EXPECTED["vectors"]["exported"][modality]
    part = Embedder.from_pretrained("exported", modalities=[modality])
    np.testing.assert_allclose(part.encode(**{modality: entry["values"]}), np.array(entry["vectors"]), atol=1e-5)


@pytest.mark.usefixtures("old_files")
@pytest.mark.parametrize("recorded", EXPECTED["printed"], ids=lambda recorded: " ".join(recorded["command"][:4]))
def test_evaluate_and_search_print_the_recorded_output(
    recorded: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*recorded["command"], "--debug"]) == 0
    assert_close(json.loads(capsys.readouterr().out), recorded["output"])


@pytest.mark.usefixtures("old_files")
def test_an_index_opens_and_matches_its_model() -> None:
    index, embedder = Index.open("index"), Embedder.from_pretrained("trained")
    assert (len(index), index.dim, index.modalities) == (200, 8, ["image", "graph", "text", "words"])
    assert index.fingerprint == embedder.fingerprint  # although the classes of its encoders have moved
    (hits,) = index.search(embedder.encode(text=["a large red circle"]), k=3, target="image")
    search = next(entry for entry in EXPECTED["printed"] if "--text" in entry["command"])
    assert_close([vars(hit) for hit in hits], search["output"]["hits"])


def test_embeddings_are_indexed(old: Path) -> None:
    assert main(["index", "embeddings", "--out", "new", "--engine", "exact", "--debug"]) == 0
    new, index = Index.open("new"), Index.open("index")
    assert np.array_equal(new.vectors, index.vectors)
    assert new.items.equals(index.items)


def test_a_table_is_embedded_with_an_old_run(old: Path) -> None:
    assert main(["embed", "trained", "--out", "new", "--precision", "float32", "--debug"]) == 0
    assert main(["index", "new", "--out", "new_index", "--engine", "exact", "--debug"]) == 0
    new, index = Index.open("new_index"), Index.open("index")
    assert new.items.equals(index.items)
    np.testing.assert_allclose(new.vectors, index.vectors, atol=1e-5)


@MOVED
@pytest.mark.parametrize(("command", "run", "steps"), [("fit", "trained", 122), ("pretrain", "pretrained", 22)])
def test_a_resumed_run_has_the_recorded_losses(command: str, run: str, steps: int, old: Path) -> None:
    resume = ["--ckpt_path", "last", "--trainer.max_steps", str(steps), "--trainer.log_every_n_steps", "1"]
    assert main([command, "--debug", "--config", f"{run}/config.yaml", *resume]) == 0
    with (old / run / "logs" / "version_1" / "metrics.csv").open() as file:
        losses = {int(row["step"]): float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]}
    recorded = {int(row["step"]): row["train/loss"] for row in EXPECTED["resumed"][run]}
    assert losses == pytest.approx(recorded, rel=1e-4)
    assert Embedder.from_pretrained(run).modalities == list(EXPECTED["vectors"][run])


@MOVED
@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_a_checkpoint_is_validated_with_its_configuration(
    checkpoint: str, old: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with (old / "trained" / "logs" / "version_0" / "metrics.csv").open() as file:
        logged = [row for row in csv.DictReader(file) if row["val/recall@1"]]
    chosen = logged[-1] if checkpoint == "last" else max(logged, key=lambda row: float(row["val/recall@1"]))
    command = ["validate", "--debug", "--config", "trained/config.yaml", "--ckpt_path", checkpoint]
    assert main(command) == 0
    printed = capfd.readouterr().err
    for pair in ("image->graph", "words->text"):
        line = next(line for line in printed.splitlines() if line.split()[:3] == pair.replace("->", " -> ").split())
        recall, mean_rank = float(line.split()[3]), float(line.split()[8])
        assert recall == pytest.approx(100 * float(chosen[f"val/{pair}/recall@1"]), abs=0.051)
        assert mean_rank == pytest.approx(float(chosen[f"val/{pair}/mean_rank"]), abs=0.051)


def test_training_starts_from_the_configuration_of_a_run_and_the_weights_of_another(old: Path) -> None:
    config = yaml.safe_load(Path("trained/config.yaml").read_text())
    assert config["model"]["begin_with"] == {"text": "pretrained"}
    short = ["--trainer.max_steps", "1", "--trainer.val_check_interval", "1", "--trainer.callbacks", "null"]
    frozen = ["--model.freeze", "{text: all}", "--model.layer_decay", "null"]  # to compare its weights
    assert main(["fit", "--debug", "--config", "trained/config.yaml", "--run", "new", *short, *frozen]) == 0
    new, pretrained = (
        Embedder.from_pretrained("new").encoder("text"),
        Embedder.from_pretrained("pretrained").encoder("text"),
    )
    assert new.processor.state() == pretrained.processor.state()
    for name, weight in pretrained.state_dict().items():
        assert new.state_dict()[name].equal(weight), name


def test_every_class_path_is_resolved(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--debug", "--config", "every_class.yaml", "--print_config"]) == 0
    read = yaml.safe_load(capsys.readouterr().out)["model"]
    written = yaml.safe_load(Path("every_class.yaml").read_text())["model"]
    assert class_names(read["encoders"]) == class_names(written["encoders"])
    assert class_names(read["objective"]) == class_names(written["objective"])
    for objective in ("MaskedTokens", "SkipGram", "CBOW"):
        path = f"multimodal.objectives.words.{objective}"
        assert main(["pretrain", "--config", "pretrain.yaml", "--model.objective", path, "--print_config"]) == 0
        assert class_names(yaml.safe_load(capsys.readouterr().out)["model"]["objective"]) == [objective]


def class_names(config: Any) -> list[str]:
    """The names of the classes in a configuration, in order, without their modules."""
    if isinstance(config, list):
        return [name for value in config for name in class_names(value)]
    if not isinstance(config, dict):
        return []
    own = [config["class_path"].rpartition(".")[2]] if "class_path" in config else []
    return own + [name for key in sorted(config) for name in class_names(config[key])]


def assert_close(found: Any, recorded: Any) -> None:
    """Compare values, numbers to 1e-5; keys that a later version adds to a mapping are allowed."""
    if isinstance(recorded, dict):
        for name, value in recorded.items():
            assert_close(found[name], value)
    elif isinstance(recorded, list):
        assert len(found) == len(recorded)
        for one, other in zip(found, recorded, strict=True):
            assert_close(one, other)
    elif isinstance(recorded, float):
        assert found == pytest.approx(recorded, abs=1e-5)
    else:
        assert found == recorded
