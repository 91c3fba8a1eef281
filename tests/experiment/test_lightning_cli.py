"""``multimodal fit|validate|test|predict``: what they write, and their errors in one line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

from multimodal import Embedder
from multimodal.cli.main import main


@pytest.fixture(scope="module")
def no_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs") / "never"


def test_a_run_holds_config_checkpoints_logs_and_the_best_model(small_config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["fit", "--config", str(small_config), "--run", str(run)]) == 0
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["batch_size"] == 16
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    (log,) = run.glob("logs/*/metrics.csv")
    columns = log.read_text().splitlines()[0].split(",")
    for name in ("loss", "temperature", "gradient_norm", "samples_per_second", "image-text"):
        assert f"train/{name}" in columns
    assert {"val/recall@1", "val/text->image/recall@1", "val/graph->text/median_rank"} <= set(columns)
    assert list(run.glob("logs/*/events.out.tfevents.*"))

    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    model = Embedder.from_pretrained(run)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, best["state_dict"][f"embedder.{name}"])

    # a completed run is not trained further, and one is not begun over it
    assert main(["fit", "--config", str(small_config), "--run", str(run), "--ckpt_path", "last"]) == 0
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 10
    assert main(["fit", "--config", str(small_config), "--run", str(run)]) == 1

    # the other commands take its checkpoints
    for command in ("validate", "test"):
        assert main([command, "--config", str(small_config), "--run", str(run), "--ckpt_path", "best"]) == 0
    assert main(["predict", "--config", str(small_config), "--run", str(run), "--ckpt_path", "best"]) == 0
    predictions = load_file(run / "predictions.safetensors")
    assert predictions["text.vectors"].shape == (len(predictions["groups"]), 16)
    with safe_open(run / "predictions.safetensors", "pt") as file:
        keys = json.loads(file.metadata()["keys"])
    assert len(keys) == len(predictions["groups"])
    assert all("/U+" in key for key in keys)


def test_a_run_of_one_step_leaves_its_model(
    small_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", str(small_config), "--run", str(tmp_path), "--trainer.max_steps", "1"]) == 0
    assert "Validation at step 1" in capsys.readouterr().err
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    for name, weight in Embedder.from_pretrained(tmp_path).state_dict().items():
        assert torch.equal(weight, best["state_dict"][f"embedder.{name}"])


def test_print_config_shows_every_key_with_its_comment(small_config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", str(small_config), "--print_config"]) == 0
    text = capsys.readouterr().out
    config = yaml.safe_load(text)
    assert config["model"]["encoders"]["text"]["init_args"]["vocab_size"] == 300
    assert config["model"]["encoders"]["text"]["init_args"]["max_length"] == 64  # a default
    assert config["model"]["objective"]["init_args"]["max_scale"] == 100.0
    assert "# number of layers" in text


Edit = Callable[[dict], object]
ERRORS: list[tuple[Edit, list[str], int, str]] = [
    (lambda c: c["model"]["encoders"].update(image="cnm"), [], 2, "Did you mean 'cnn'?"),
    (lambda c: c["model"]["encoders"].update(image="no.such.Class"), [], 2, "Cannot import the image encoder"),
    (lambda c: c["model"]["encoders"].update(smell="nose"), [], 2, "No encoder is registered for modality 'smell'"),
    (lambda c: c["model"]["encoders"]["text"]["init_args"].update(widht=3), [], 2, "Did you mean 'width'?"),
    (lambda c: c.update(sed_everything=3), [], 2, "Did you mean 'seed_everything'?"),
    (lambda c: c["trainer"].update(max_steps="many"), [], 2, "trainer.max_steps"),
    (lambda c: c["data"]["columns"].update(image="picture"), [], 2, "has no column 'picture'"),
    (
        lambda c: c["data"]["columns"].pop("image"),
        [],
        2,
        "has an encoder for 'image', but columns names none for it",
    ),
    (lambda c: c["data"].update(train="training"), [], 2, "Did you mean 'train'?"),
    (lambda c: c["data"].update(batch_size=1000), [], 1, "Lower batch_size"),
    (lambda c: None, ["--model.encoders.text", "transfomer"], 2, "Did you mean 'transformer'"),
    (lambda c: None, ["--data.batch_sz", "3"], 2, "Did you mean 'data.batch_size'?"),
    (lambda c: None, ["--trainer.max_step", "3"], 2, "Did you mean 'trainer.max_steps'?"),
    (lambda c: None, ["--ckpt_path", "nowhere.ckpt"], 1, "nowhere.ckpt does not exist"),
    (lambda c: None, ["pairs.yaml"], 2, "unrecognized arguments: pairs.yaml. Did you mean --config pairs.yaml?"),
    (lambda c: None, ["--model.objective", "multimodal.objectives.InfoNC"], 2, "Did you mean 'InfoNCE'?"),
    (lambda c: c["data"].update(validation="val"), [], 2, "has no split 'val'. Did you mean 'validation'?"),
    (lambda c: None, ["--config", "nowhere.yaml"], 2, "nowhere.yaml"),
    (
        lambda c: c["model"].update(lora={"text": {"target": "x"}}),
        [],
        2,
        "LoRA has no parameter 'target'. Did you mean",
    ),
    (lambda c: c["model"].update(objective="Info"), [], 2, "Did you mean 'InfoNCE'?"),
    (
        lambda c: None,
        ["--model.objective", "Info"],
        2,
        "Did you mean 'InfoNCE'? Known: BackwardCompatible, BarlowTwins",
    ),
    (lambda c: None, ["--model.objective.margn", "1"], 2, "model.objective: InfoNCE has no parameter 'margn'. Known: "),
    (lambda c: None, ["--model.encoders.text.init_args.widht", "3"], 2, "no parameter 'widht'. Did you mean 'width'?"),
    (lambda c: None, ["--model.lora.text.target", "x"], 2, "as a whole, like --model.lora '{text: {target: x}}'."),
    (
        lambda c: None,
        ["--model.optimizer.init_args.lr", "fast"],
        2,
        "model.optimizer: lr must be a number, not 'fast'.",
    ),
    (lambda c: None, ["--model.optimizer", "Adm"], 2, "model.optimizer: 'Adm' is neither the name nor the path of a"),
    (lambda c: None, ["--trainer.precision", "fp8"], 2, "precision must be one of 64, 32, 16, transformer-engine, "),
    (lambda c: None, ["--trainer.accelerator", "mps"], 2, "no such device was found here; use auto"),
    (lambda c: None, ["--trainer.accelerator", "cuda0"], 2, "accelerator 'cuda0' is unknown; use auto, cpu"),
    (lambda c: None, ["--model.dim", "big"], 2, "fit: model.dim must be a whole number, not 'big'."),
]


@pytest.mark.parametrize(("edit", "arguments", "code", "message"), ERRORS)
def test_an_error_is_one_line_and_leaves_no_run(
    edit: Edit,
    arguments: list[str],
    code: int,
    message: str,
    small_config: Path,
    no_run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = yaml.safe_load(small_config.read_text())
    edit(config)
    small_config.write_text(json.dumps(config))
    assert main(["fit", "--config", str(small_config), "--run", str(no_run), *arguments]) == code
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("multimodal fit: ")
    assert message in line
    assert not no_run.exists()


def test_a_call_without_a_configuration_says_what_to_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("multimodal fit: model.encoders, data.table, data.columns: not set. Give a configuration by")


def test_a_file_that_is_not_yaml_is_named_with_the_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.yaml").write_text("data: {table: x\nmodel:\n  dim: 3\n")
    assert main(["fit", "--config", str(tmp_path / "bad.yaml")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / 'bad.yaml'}, line 2, column 6: this is not YAML: " in line


def test_a_class_of_the_user_s_own_that_is_not_there_is_named(
    small_config: Path, no_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", str(small_config), "--run", str(no_run), "--model.objective", "close.Clos"]) == 2
    assert "'close.Clos' is neither the name nor the path of a class" in capsys.readouterr().err


def test_a_column_without_an_encoder_is_warned_of_and_not_used(
    small_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fit", "--config", str(small_config), "--run", str(tmp_path / "run"), "--trainer.max_steps", "1"]
    assert main([*command, "--data.columns.txet", "name"]) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Warning: ")]
    assert warnings == [
        "Warning: columns names 'txet', for which the model has no encoder; it is not used."
        " Did you mean 'text'? Known: graph, image, text."
    ]


def test_a_decay_over_no_layers_is_warned_of(
    small_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fit", "--config", str(small_config), "--run", str(tmp_path / "run"), "--trainer.max_steps", "1"]
    decay = ["--model.encoders.text", "bag", "--model.layer_decay", "{image: 0.5, text: 0.5}"]
    assert main([*command, *decay]) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Warning: ")]
    assert [line.partition(",")[0] for line in warnings] == ["Warning: layer_decay.text has nothing to decay over"]


def test_a_resumed_training_shows_all_its_steps_and_its_own_speed(
    small_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fit", "--config", str(small_config), "--run", str(tmp_path / "run"), "--ckpt_path", "last"]
    assert main([*command, "--trainer.max_steps", "5"]) == 0  # one batch of the second epoch
    capsys.readouterr()
    assert main([*command, "--trainer.max_steps", "7", "--trainer.enable_progress_bar", "true"]) == 0
    shown = capsys.readouterr().err
    assert "Training: step 7/7, " in shown
    logs = sorted((tmp_path / "run").glob("logs/*/metrics.csv"), key=lambda path: path.stat().st_mtime)
    speeds = [
        float(row["train/samples_per_second"] or 100) for row in csv.DictReader(logs[-1].read_text().splitlines())
    ]
    assert min(speeds) > 1  # the time since the machine was started is not part of the step's
