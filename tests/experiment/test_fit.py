"""Training from Python is the training of the command line, bit for bit."""

from __future__ import annotations

import gc
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.optim import AdamW

import multimodal as mm
from multimodal.cli.main import main
from multimodal.objectives import InfoNCE
from multimodal.training import AveragedWeights

TEXT = {"width": 16, "layers": 1, "heads": 2, "vocab_size": 100, "drop": 0.1}
SETTINGS: dict[str, Any] = {"val_check_interval": 2, "enable_progress_bar": False, "accelerator": "cpu"}


def three_objects(table: Path) -> tuple[mm.EmbedderModule, mm.DataModule]:
    """What tests/experiment/conftest.py's configuration describes, made by a program."""
    mm.seed_everything(3)
    data = mm.DataModule(
        str(table), {"text": "name", "words": "words"}, split="split", test="validation", batch_size=10
    )
    model = mm.EmbedderModule(
        {"text": mm.create("text", "transformer", **TEXT), "words": mm.create("text", "bag")},
        dim=8,
        objective=InfoNCE(smoothing=0.1),
        optimizer=partial(AdamW, lr=0.01),
        freeze={"text": {0: "none"}},
        seed=3,
    )
    return model, data


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def assert_same_run(a: Path, b: Path) -> None:
    assert {path.name for path in a.iterdir()} == {path.name for path in b.iterdir()}
    torch.testing.assert_close(weights(a), weights(b), rtol=0, atol=0)
    ours, theirs = (yaml.safe_load((run / "config.yaml").read_text()) for run in (a, b))
    for config in (ours, theirs):
        config.pop("run")
    assert {key: ours[key] for key in ("seed_everything", "data", "model", "trainer")} == {
        key: theirs[key] for key in ("seed_everything", "data", "model", "trainer")
    }


def test_python_and_the_command_line_leave_the_same_run(table: Path, config_file: Path, tmp_path: Path) -> None:
    assert main(["fit", "--config", str(config_file), "--run", str(tmp_path / "cli")]) == 0
    model, data = three_objects(table)
    embedder = mm.fit(model, data, tmp_path / "python", max_steps=6, callbacks=[AveragedWeights(decay=0.9)], **SETTINGS)
    assert_same_run(tmp_path / "cli", tmp_path / "python")
    assert (tmp_path / "python" / "config.yaml").read_text().count("transformer") == 1  # by its registered name
    np.testing.assert_array_equal(
        embedder.encode(text=["thing 7"]), mm.Embedder.from_pretrained(tmp_path / "cli").encode(text=["thing 7"])
    )


@pytest.mark.usefixtures("_nothing_frozen")
def test_what_was_loaded_is_frozen_while_it_trains_also_where_that_fails(table: Path, tmp_path: Path) -> None:
    frozen: list[int] = []

    class Fails(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            frozen.append(gc.get_freeze_count())
            raise RuntimeError("out of memory")

    model, data = three_objects(table)
    with pytest.raises(RuntimeError, match="out of memory"):
        mm.fit(model, data, tmp_path / "run", max_steps=6, callbacks=[Fails()], **SETTINGS)
    assert frozen[0] > 10_000
    assert gc.get_freeze_count() == 0


def test_a_configuration_loads_into_the_objects_that_train_the_same(config_file: Path, tmp_path: Path) -> None:
    assert main(["fit", "--config", str(config_file), "--run", str(tmp_path / "cli")]) == 0
    loaded = mm.load_config(config_file, {"run": str(tmp_path / "loaded")})
    loaded.trainer.fit(loaded.model, datamodule=loaded.data)
    torch.testing.assert_close(weights(tmp_path / "cli"), weights(tmp_path / "loaded"), rtol=0, atol=0)


def test_a_run_s_configuration_loads_again(table: Path, tmp_path: Path) -> None:
    model, data = three_objects(table)
    mm.fit(model, data, tmp_path / "first", max_steps=2, **SETTINGS)
    model, data, trainer = mm.load_config(tmp_path / "first", {"run": str(tmp_path / "second")})
    trainer.fit(model, datamodule=data)
    torch.testing.assert_close(weights(tmp_path / "first"), weights(tmp_path / "second"), rtol=0, atol=0)


def test_a_run_is_not_overwritten_and_resumes_bit_for_bit(table: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    mm.fit(*three_objects(table), whole, max_steps=6, **SETTINGS)
    mm.fit(*three_objects(table), parts, max_steps=6, limit_val_batches=1, **SETTINGS)
    with pytest.raises(mm.MultimodalError, match=r"holds a run already\. Resume it with resume=True"):
        mm.fit(*three_objects(table), parts, max_steps=6, **SETTINGS)
    short = mm.make_trainer(tmp_path / "cut", max_steps=6, **SETTINGS)
    model, data = three_objects(table)

    class StopAtFour(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.global_step == 4:
                raise KeyboardInterrupt

    short.callbacks.append(StopAtFour())  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        short.fit(model, datamodule=data)
    mm.fit(*three_objects(table), tmp_path / "cut", resume=True, max_steps=6, **SETTINGS)
    last = [
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for run in (whole, tmp_path / "cut")
    ]
    torch.testing.assert_close(*last, rtol=0, atol=0)


def test_a_trainer_of_your_own_trains_the_module_on_the_data(table: Path, tmp_path: Path) -> None:
    model, data = three_objects(table)
    trainer = pl.Trainer(
        max_steps=4,
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
    )
    before = {name: p.detach().clone() for name, p in model.embedder.named_parameters()}
    trainer.fit(model, datamodule=data)
    assert trainer.global_step == 4
    assert any(not torch.equal(p, before[name]) for name, p in model.embedder.named_parameters())
    assert model.embedder.encode(text="thing 3").shape == (8,)


def test_what_a_program_made_is_named_in_the_configuration(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, _ = three_objects(table)
    rows = [{"name": f"thing {n}", "words": f"number {n}"} for n in range(60)]
    data = mm.DataModule(rows, {"text": "name", "words": "words"}, batch_size=10)

    class Mine(pl.Callback):
        pass

    mm.fit(model, data, tmp_path / "run", max_steps=2, callbacks=[Mine()], **SETTINGS)
    text = (tmp_path / "run" / "config.yaml").read_text()
    assert "# Made by a program, so not in this file: data.table (list)." in text
    assert "trainer.callbacks[0] (Mine)" in capsys.readouterr().err
    with pytest.raises(mm.UsageError, match="a table in memory"):
        mm.evaluate(tmp_path / "run")
    assert mm.evaluate(tmp_path / "run", data, split="validation").pairs["text->words"].queries > 0


@pytest.mark.parametrize("run", ["notes.txt", "notes.txt/run"])
def test_a_file_is_not_a_run_folder(
    table: Path, config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], run: str
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    message = "notes.txt is a file, not a folder; name another folder"
    with pytest.raises(mm.UsageError, match=message):
        mm.fit(*three_objects(table), tmp_path / run, max_steps=1, **SETTINGS)
    assert main(["fit", "--config", str(config_file), "--run", str(tmp_path / run)]) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_misspelled_argument_is_reported_with_the_right_one(table: Path, tmp_path: Path) -> None:
    model, data = three_objects(table)
    with pytest.raises(mm.UsageError, match=r"^fit\(\) takes no argument 'max_step'\. Did you mean 'max_steps'"):
        mm.fit(model, data, tmp_path / "run", max_step=3)
    with pytest.raises(mm.UsageError, match=r"^fit\(\) takes no argument 'lr'\. .* optimizer=functools\.partial"):
        mm.fit(model, data, tmp_path / "run", lr=1e-3)
    with pytest.raises(mm.UsageError, match=r"takes no argument 'colums'\. Did you mean 'columns'"):
        mm.evaluate(model.embedder, [{"name": "a"}], colums={"text": "name"})
    with pytest.raises(mm.UsageError, match=r"takes no argument 'nearr'\. Did you mean 'near'"):
        mm.prepare_table(str(table), tmp_path / "out", nearr=0.5)


def test_a_training_without_an_end_is_refused(table: Path, config: dict[str, Any], tmp_path: Path) -> None:
    message = "Set how long to train: the trainer's max_steps, max_epochs or max_time"
    with pytest.raises(mm.UsageError, match=message):
        mm.fit(*three_objects(table), tmp_path / "run", **SETTINGS)
    del config["trainer"]["max_steps"]
    (tmp_path / "endless.yaml").write_text(yaml.safe_dump(config))
    loaded = mm.load_config(tmp_path / "endless.yaml", {"run": str(tmp_path / "run")})
    with pytest.raises(mm.UsageError, match=message):
        loaded.trainer.fit(loaded.model, datamodule=loaded.data)
    with pytest.raises(mm.UsageError, match=r"The schedule needs the length of the training: set max_steps"):
        mm.fit(*three_objects(table), tmp_path / "run", max_epochs=-1, **SETTINGS)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "limit", [{"max_epochs": 1}, {"max_steps": 10**9, "max_time": "00:00:00:01"}, {"fast_dev_run": True}]
)
def test_a_training_ends_by_its_epochs_its_time_or_as_a_test(
    limit: dict[str, Any], table: Path, tmp_path: Path
) -> None:
    trainer = mm.make_trainer(tmp_path / "run", **SETTINGS | {"val_check_interval": 1.0}, **limit)
    model, data = three_objects(table)
    trainer.fit(model, datamodule=data)
    assert trainer.global_step > 0


def test_an_unknown_part_of_a_configuration_is_refused_even_without_a_value(config_file: Path) -> None:
    for value in ({}, None, {"batch_size": 3}):
        with pytest.raises(mm.UsageError, match=r"A configuration has no setting 'dta'\. Did you mean 'data'"):
            mm.load_config(config_file, {"dta": value})


def test_a_run_that_fails_before_its_first_step_leaves_no_folder(
    table: Path, config: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = three_objects(table)
    data.batch_size = 1000
    with pytest.raises(mm.MultimodalError, match=r"Lower batch_size"):
        mm.fit(model, data, tmp_path / "python", max_steps=2, **SETTINGS)
    config["data"]["batch_size"] = 1000
    (tmp_path / "large.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(tmp_path / "large.yaml"), "--run", str(tmp_path / "cli")]) == 1
    assert "Lower batch_size" in capsys.readouterr().err
    assert not (tmp_path / "python").exists()
    assert not (tmp_path / "cli").exists()


def test_arguments_of_wrong_types_are_reported(table: Path, tmp_path: Path) -> None:
    model, data = three_objects(table)
    for arguments, message in [
        ((model, "pairs.csv"), r"data must be a DataModule, not 'pairs\.csv'; .*multimodal\.DataModule\("),
        ((data, model), r"model must be an EmbedderModule, not a DataModule; .* order is fit\(model, data\)\."),
        ((model.embedder, data), r"model must be an EmbedderModule, not an Embedder; .*multimodal\.EmbedderModule\("),
        ((model, data, 3), "run must be a string or a Path, not 3"),
    ]:
        with pytest.raises(mm.UsageError, match=f"^fit: {message}"):
            mm.fit(*arguments)  # pyright: ignore[reportArgumentType]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"max_steps": "3"}, "^fit: max_steps must be a whole number, not '3'"),
        ({"precision": "bf17"}, "^fit: precision must be 64 or 32 .* or 'bf16', not 'bf17'"),
        (
            {"accelerator": "cuda0"},
            r"The accelerator 'cuda0' is unknown; use auto, cpu, cuda or mps, and devices: \[0\]",
        ),
        ({"accelerator": "cpu", "devices": "none"}, "should be an int > 0"),
    ]
    for settings, message in wrong:
        with pytest.raises(mm.UsageError, match=message):
            mm.fit(model, data, tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_a_trainer_takes_what_lightning_takes(tmp_path: Path) -> None:
    trainer = mm.make_trainer(
        tmp_path, max_steps=1e3, min_epochs=None, limit_val_batches=0.5, callbacks=(pl.Callback(),), accelerator="cpu"
    )
    assert trainer.max_steps == 1000


def test_another_model_is_not_resumed_and_named(
    table: Path, config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    model, data = three_objects(table)
    mm.fit(model, data, run, max_steps=2, **SETTINGS)
    words = {"words": mm.create("text", "bag")}
    others = [
        (
            {"text": mm.create("text", "transformer", **TEXT)} | words,
            16,
            r"has the shape \(8, 16\) there and \(16, 16\) here",
        ),
        ({"text": mm.create("text", "bag")} | words, 8, r"embedder\.encoders\.text\.\S+ \(.*\) is only in"),
        (words, 8, r"embedder\.encoders\.text\.\S+ \(.*\) is only in the checkpoint"),
        (
            {"title": mm.create("text", "bag")} | words,
            8,
            r"embedder\.encoders\.title\.\S+ \(.*\) is only in this model",
        ),
    ]
    for encoders, dim, message in others[:2]:
        with pytest.raises(mm.UsageError, match=f"^The checkpoint is of another model: .*{message}"):
            mm.fit(mm.EmbedderModule(encoders, dim), data, run, resume=True, max_steps=4, **SETTINGS)
    for encoders, dim, message in others:
        saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
        other = mm.EmbedderModule(encoders, dim)
        with pytest.raises(mm.UsageError, match=f"^The checkpoint is of another model: .*{message}"):
            other.load_state_dict(saved["state_dict"])
    capsys.readouterr()
    arguments = ["--config", str(config_file), "--run", str(run), "--ckpt_path", "last", "--model.dim", "16"]
    assert main(["fit", *arguments]) == 2
    assert "another model: embedder.heads.text.weight has the shape (8, 16) there" in capsys.readouterr().err
