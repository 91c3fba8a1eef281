"""The last step is validated wherever it is in an epoch, and its model and checkpoints are saved."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from safetensors.torch import load_file
from torch.optim import SGD

import multimodal as mm
from multimodal.training import AveragedWeights
from multimodal.training.schedule import Constant

ROWS = [
    {"name": f"thing {n}", "words": f"number {n % 7}", "split": "train" if n < 48 else "validation"} for n in range(60)
]
SETTINGS: dict[str, Any] = {"enable_progress_bar": False, "accelerator": "cpu", "num_sanity_val_steps": 0}


class Validations(pl.Callback):
    """Records the steps that were validated."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.steps.append(trainer.global_step)


class FailAtThree(pl.Callback):
    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == 3:
            raise RuntimeError("power cut")


def objects() -> tuple[mm.EmbedderModule, mm.DataModule]:
    """Two bags of words and 48 rows to train on, in twelve batches an epoch."""
    mm.seed_everything(3)
    encoders = {modality: mm.create("text", "bag", width=8, vocab_size=50) for modality in ("text", "words")}
    model = mm.EmbedderModule(encoders, dim=8, optimizer=partial(SGD, lr=0.5), schedule=Constant(), seed=3)
    return model, mm.DataModule(ROWS, {"text": "name", "words": "words"}, split="split", batch_size=4)


def fit(run: Path, *callbacks: pl.Callback, **settings: Any) -> mm.Embedder:
    return mm.fit(*objects(), run, callbacks=list(callbacks), **SETTINGS | settings)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def checkpoint(run: Path, name: str) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


def embedder_weights(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    prefix = "embedder."
    return {name[len(prefix) :]: value for name, value in checkpoint["state_dict"].items() if name.startswith(prefix)}


@pytest.mark.parametrize(
    ("settings", "validated"),
    [
        ({"max_steps": 5}, [5]),
        ({"max_steps": 12}, [12]),
        ({"max_steps": 14}, [12, 14]),
        ({"max_steps": 6, "val_check_interval": 3}, [3, 6]),
        ({"max_steps": 5, "val_check_interval": 3}, [3, 5]),
        ({"max_steps": 3, "accumulate_grad_batches": 2}, [3]),
        ({"max_epochs": 1}, [12]),
        ({"max_epochs": 1, "val_check_interval": 5}, [5, 10, 12]),
        ({"max_epochs": 3, "check_val_every_n_epoch": 2}, [24, 36]),
        ({"max_steps": 5, "check_val_every_n_epoch": 2}, [5]),
        ({"max_steps": 30, "check_val_every_n_epoch": None, "val_check_interval": 20}, [20, 30]),
    ],
)
def test_the_last_step_is_validated_once_and_saved(
    settings: dict[str, Any], validated: list[int], tmp_path: Path
) -> None:
    validations = Validations()
    trainer = mm.make_trainer(tmp_path / "run", callbacks=validations, **SETTINGS, **settings)
    model, data = objects()
    trainer.fit(model, datamodule=data)
    assert validations.steps == validated
    assert trainer.check_val_every_n_epoch == settings.get("check_val_every_n_epoch", 1)  # pyright: ignore
    assert checkpoint(tmp_path / "run", "last")["global_step"] == validated[-1]
    best = checkpoint(tmp_path / "run", "best")
    assert best["global_step"] in validated
    torch.testing.assert_close(weights(tmp_path / "run"), embedder_weights(best), rtol=0, atol=0)


def test_the_average_of_the_last_step_is_validated_and_saved(tmp_path: Path) -> None:
    fit(tmp_path / "run", AveragedWeights(decay=0.9), max_steps=5)
    saved = checkpoint(tmp_path / "run", "last")
    torch.testing.assert_close(weights(tmp_path / "run"), embedder_weights(saved), rtol=0, atol=0)
    assert not torch.equal(
        saved["state_dict"]["embedder.heads.text.weight"],
        saved["current_model_state"]["embedder.heads.text.weight"],
    )


@pytest.mark.parametrize("averaged", [False, True])
def test_without_validation_the_last_weights_are_the_model(averaged: bool, tmp_path: Path) -> None:
    callbacks = [AveragedWeights(decay=0.9)] if averaged else []
    fit(tmp_path / "run", *callbacks, max_steps=5, limit_val_batches=0)
    last = checkpoint(tmp_path / "run", "last")
    assert last["global_step"] == 5
    assert ("current_model_state" in last) == averaged
    torch.testing.assert_close(weights(tmp_path / "run"), embedder_weights(last), rtol=0, atol=0)
    assert not (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()


def test_a_short_training_continues_to_the_weights_of_a_long_one(tmp_path: Path) -> None:
    fit(tmp_path / "whole", max_steps=9)
    fit(tmp_path / "parts", max_steps=5)
    fit(tmp_path / "parts", max_steps=9, resume=True)
    whole, parts = (checkpoint(tmp_path / run, "last") for run in ("whole", "parts"))
    assert whole["global_step"] == parts["global_step"] == 9
    torch.testing.assert_close(whole["state_dict"], parts["state_dict"], rtol=0, atol=0)


def test_training_that_ends_by_an_error_is_not_validated(tmp_path: Path) -> None:
    validations = Validations()
    with pytest.raises(RuntimeError, match="power cut"):
        fit(tmp_path / "run", validations, FailAtThree(), max_steps=5)
    assert validations.steps == []
    assert not (tmp_path / "run" / "model").exists()
