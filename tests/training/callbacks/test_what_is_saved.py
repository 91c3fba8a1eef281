"""What was trained is saved, finite, whatever ends the training; what can learn nothing is refused before the first step."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from safetensors.torch import load_file
from torch.optim import SGD

import multimodal as mm
from multimodal.training import Constant

SETTINGS: dict[str, Any] = {"enable_progress_bar": False, "accelerator": "cpu", "precision": 32}


def rows(train: int = 24) -> list[dict[str, Any]]:
    splits = ["train"] * train + ["validation"] * 12
    return [{"name": f"thing {n}", "words": f"number {n % 7}", "split": split} for n, split in enumerate(splits)]


def fit(
    run: Path,
    *callbacks: pl.Callback,
    table: Any = None,
    lr: float = 0.5,
    data: dict[str, Any] | None = None,
    monitor: str | None = None,
    **settings: Any,
) -> mm.Embedder:
    mm.seed_everything(3)
    encoders = {modality: mm.create("text", "bag", width=8, vocab_size=50) for modality in ("text", "words")}
    model = mm.EmbedderModule(encoders, dim=8, optimizer=partial(SGD, lr=lr), schedule=Constant(), seed=3)
    columns: dict[str, str | list[str]] = {"text": "name", "words": "words"}
    module = mm.DataModule(table or rows(), columns, split="split", **{"batch_size": 4, **(data or {})})
    return mm.fit(model, module, run, callbacks=list(callbacks), monitor=monitor, **SETTINGS | settings)


def checkpoint(run: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


class StopAfterEpoch(pl.Callback):
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = True


class StopAt(pl.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.global_step == self.step


class Spoil(pl.Callback):
    """Sets a weight to NaN after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if trainer.global_step == self.step:
            with torch.no_grad():
                next(pl_module.parameters()).view(-1)[0] = torch.nan


@pytest.mark.parametrize(
    ("callback", "settings", "steps"),
    [
        (StopAfterEpoch(), {"max_epochs": 9, "check_val_every_n_epoch": 4}, 6),
        (StopAt(4), {"max_epochs": 9, "check_val_every_n_epoch": 4}, 4),
        (StopAt(4), {"max_epochs": 9, "limit_val_batches": 0}, 4),
        (None, {"max_epochs": 2, "check_val_every_n_epoch": 99}, 12),
        (None, {"max_steps": 7, "limit_val_batches": 0, "val_check_interval": 4, "check_val_every_n_epoch": None}, 7),
        (None, {"max_steps": 3, "min_epochs": 1, "check_val_every_n_epoch": 5}, 3),
        (None, {"max_epochs": 1, "accumulate_grad_batches": 4}, 2),
    ],
)
def test_the_last_step_is_saved_whatever_ends_the_training(
    callback: pl.Callback | None, settings: dict[str, Any], steps: int, tmp_path: Path
) -> None:
    fit(tmp_path, *([callback] if callback else []), **settings)
    last = checkpoint(tmp_path)
    assert last["global_step"] == steps
    saved = load_file(tmp_path / "model" / "model.safetensors")
    weights = {
        name.removeprefix("embedder."): w for name, w in last["state_dict"].items() if name.startswith("embedder.")
    }
    torch.testing.assert_close(saved, weights, rtol=0, atol=0)


def test_max_time_alone_trains_and_saves(tmp_path: Path) -> None:
    fit(tmp_path, max_time="00:00:00:01", check_val_every_n_epoch=100_000)
    assert checkpoint(tmp_path)["global_step"] > 0


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    message = r"weights after step 5 are not finite \(embedder\..*last\.ckpt, is of step 4\."
    with pytest.raises(mm.MultimodalError, match=message):
        fit(tmp_path, Spoil(5), max_steps=5, val_check_interval=2)
    for name in ("last", "best"):
        assert all(w.isfinite().all() for w in checkpoint(tmp_path, name)["state_dict"].values())
    assert all(w.isfinite().all() for w in load_file(tmp_path / "model" / "model.safetensors").values())
    assert checkpoint(tmp_path)["global_step"] == 4


@pytest.mark.parametrize("settings", [{"val_check_interval": 1}, {"limit_val_batches": 0, "max_steps": 1}])
def test_an_infinite_learning_rate_saves_nothing(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(mm.MultimodalError, match=r"not finite .*No checkpoint had been written before"):
        fit(tmp_path, lr=float("inf"), **{"max_steps": 6, **settings})
    assert not list(tmp_path.rglob("*.ckpt"))
    assert not (tmp_path / "model").exists()


def test_a_loss_that_is_not_finite_names_the_checkpoint_before_it(tmp_path: Path) -> None:
    with pytest.raises(mm.MultimodalError, match=r"The loss of step 5 is nan; .*last\.ckpt, is of step 4\."):
        fit(tmp_path, Spoil(5), max_steps=9, val_check_interval=2)


def test_a_monitor_that_nothing_logs_is_an_error_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(mm.UsageError, match=r"EarlyStopping monitors 'val/recal@1'.*Did you mean 'val/recall@1'"):
        fit(tmp_path, EarlyStopping("val/recal@1"), max_steps=4)
    assert not (tmp_path / "checkpoints").exists()
    with pytest.raises(mm.UsageError, match=r"EarlyStopping monitors 'train/los', .*Did you mean 'train/loss'"):
        fit(tmp_path, EarlyStopping("train/los"), max_steps=4)
    fit(tmp_path / "good", EarlyStopping("val/text->words/recall@5"), EarlyStopping("train/loss"), max_steps=4)


def test_the_best_model_is_that_of_the_monitored_metric(tmp_path: Path) -> None:
    fit(tmp_path / "run", max_steps=12, val_check_interval=3, monitor="val/text->words/mean_rank")
    (file,) = (tmp_path / "run").glob("logs/*/metrics.csv")
    with file.open() as lines:
        logged = [row for row in csv.DictReader(lines) if row["val/text->words/mean_rank"]]
    best = min(logged, key=lambda row: float(row["val/text->words/mean_rank"]))
    assert checkpoint(tmp_path / "run", "best")["global_step"] == int(best["step"]) + 1
    assert all(float(row["val/text-words/gap"]) >= 0 for row in logged)
    assert all(1 <= float(row["val/text/effective_rank"]) <= 8 for row in logged)
    with pytest.raises(
        mm.UsageError, match=r"RetrievalMonitor monitors 'val/text->word/mrr', which nothing logs.*Did you"
    ):
        fit(tmp_path / "wrong", max_steps=2, monitor="val/text->word/mrr")
    with pytest.raises(
        mm.UsageError, match=r"chosen by a metric of the validation, like val/recall@1, got 'train/loss'"
    ):
        fit(tmp_path / "wrong", max_steps=2, monitor="train/loss")
    assert not (tmp_path / "wrong" / "model").exists()


def apart(split: str) -> list[dict[str, Any]]:
    """The rows, with one modality each in a split."""
    return [row | {("name", "words")[n % 2]: None} if row["split"] == split else row for n, row in enumerate(rows())]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"table": apart("train")}, r"No row of the split 'train' has text-words, which the objective compares"),
        ({"table": apart("validation")}, r"'validation' has no pair of modalities to validate with: .* text-words"),
        ({"data": {"batch_size": 1}}, r"batch_size 1: .* a batch needs 2"),
        ({"data": {"group": "split"}}, r"All rows of the split 'train' are in one group"),
    ],
)
def test_a_training_that_can_learn_nothing_is_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(mm.UsageError, match=message):
        fit(tmp_path, max_steps=4, **settings)
    assert not (tmp_path / "checkpoints").exists()


def test_modalities_in_several_rows_of_a_group_are_trained(tmp_path: Path) -> None:
    table = [row | {"thing": n // 2} for n, row in enumerate(apart("train"))]
    with pytest.raises(mm.UsageError, match=r"name the column that they share as group, and set epoch: rows"):
        fit(tmp_path, max_steps=2, table=table, data={"group": "thing"})
    fit(tmp_path, max_steps=2, table=table, data={"group": "thing", "epoch": "rows", "batch_size": 8})


@pytest.mark.parametrize("settings", [{"overfit_batches": 1}, {"overfit_batches": 2}])
def test_overfitting_repeats_the_same_batches(settings: dict[str, Any], tmp_path: Path) -> None:
    seen: list[tuple[str, ...]] = []

    class Record(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            seen.append(batch.keys)

    fit(tmp_path, Record(), max_steps=6, **settings)
    count = settings["overfit_batches"]
    assert len(set(seen)) == count
    assert seen == seen[:count] * (6 // count)


@pytest.mark.parametrize("fraction", [{"limit_train_batches": 0.5}, {"val_check_interval": 0.5}])
def test_settings_that_need_a_length_work(fraction: dict[str, Any], tmp_path: Path) -> None:
    fit(tmp_path, max_epochs=2, **fraction)
    assert checkpoint(tmp_path)["global_step"] == (6 if "limit_train_batches" in fraction else 12)
