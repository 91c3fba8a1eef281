"""Stopped and resumed, a training equals one that was not stopped: whatever limits it, wherever it stops, however it reads."""

from __future__ import annotations

import os
import signal
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch.optim import AdamW

import multimodal as mm
from multimodal.training import Constant
from multimodal.training.callbacks.interrupt import TrainingStopped

TRAINER: dict[str, Any] = {
    "accelerator": "cpu", "precision": 32, "enable_progress_bar": False, "num_sanity_val_steps": 0, "log_every_n_steps": 1,
}  # fmt: skip
BATCHES = 5  # in an epoch
MODES: dict[str, dict[str, Any]] = {
    "max_steps": {"max_steps": 13},
    "max_steps_and_interval": {"max_steps": 13, "val_check_interval": 4, "check_val_every_n_epoch": None},
    "max_epochs": {"max_epochs": 3},
    "max_epochs_and_interval": {"max_epochs": 3, "val_check_interval": 2},
    "every_second_epoch": {"max_epochs": 3, "check_val_every_n_epoch": 2},
    "both": {"max_epochs": 3, "max_steps": 13},
    "neither": {"max_epochs": -1},
    "max_time": {"max_time": "00:01:00:00"},
    "without_validation": {"max_epochs": 3, "limit_val_batches": 0},
    "accumulated": {"max_epochs": 4, "accumulate_grad_batches": 2},
    "limited_epochs": {"max_epochs": 4, "limit_train_batches": 3},
}
ENDLESS_STOP = 13  # the step at which a training without a limit is stopped for good


class Watch(pl.Callback):
    """Records batches and validations, and sends a signal after a step or within a validation."""

    def __init__(self, step: int | None = None, validation: int | None = None, number: int = signal.SIGINT) -> None:
        self.step, self.validation, self.number = step, validation, number
        self.batches: list[tuple[int, tuple[str, ...]]] = []
        self.validations: list[int] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.batches.append((trainer.global_step, batch.keys))
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.validations.append(trainer.global_step)
        if trainer.global_step == self.validation:
            os.kill(os.getpid(), self.number)


@pytest.fixture(params=["mapped", "streamed"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    rows = [f"{n},thing {n},number {n % 7},{'train' if n < 8 * BATCHES else 'validation'}" for n in range(50)]
    (tmp_path / "t.csv").write_text("\n".join(["key,name,words,split", *rows]) + "\n")
    settings = {"table": str(tmp_path / "t.csv"), "columns": {"text": "name", "words": "words"}, "key": "key"}
    return settings | {"split": "split", "batch_size": 8, "buffer": 16, "access": request.param}


def train(run: Path, data: dict[str, Any], watch: Watch, resume: bool = False, **settings: Any) -> Watch:
    """Train, and return what was seen; a signal ends it with ``TrainingStopped``."""
    mm.seed_everything(3)
    encoders = {modality: mm.create("text", "bag", width=8, vocab_size=50) for modality in ("text", "words")}
    model = mm.EmbedderModule(encoders, dim=8, optimizer=partial(AdamW, lr=0.05), schedule=Constant(), seed=3)
    stops = watch.step is not None or watch.validation is not None
    with pytest.raises(TrainingStopped, match="--ckpt_path last") if stops else nullcontext() as stopped:
        mm.fit(model, mm.DataModule(**data), run, resume=resume, callbacks=[watch], **TRAINER, **settings)
    if stopped is not None:
        assert stopped.value.exit_code == 128 + watch.number
    return watch


def last(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def assert_resumes(
    tmp_path: Path, data: dict[str, Any], settings: dict[str, Any], stop: Watch, again: dict[str, Any] | None = None
) -> None:
    """Check that a training that ``stop`` stops continues as one that is not stopped."""
    endless = "max_steps" not in settings and settings.get("max_epochs", -1) == -1
    end = partial(Watch, ENDLESS_STOP if endless else None)
    whole = train(tmp_path / "whole", data, end(), **settings)
    first = train(tmp_path / "parts", data, stop, **settings)
    second = train(tmp_path / "parts", data | (again or {}), end(), resume=True, **settings)
    assert first.batches
    assert second.batches
    assert first.batches + second.batches == whole.batches
    assert first.validations + second.validations == whole.validations
    a, b = last(tmp_path / "whole"), last(tmp_path / "parts")
    assert a["global_step"] == b["global_step"]
    torch.testing.assert_close(a["state_dict"], b["state_dict"], rtol=0, atol=0)


FAST = {("max_epochs", 5), ("max_epochs", 8), ("both", 8), ("max_steps", 4)}


@pytest.mark.parametrize(
    ("mode", "step"),
    [
        pytest.param(mode, step, marks=() if (mode, step) in FAST else pytest.mark.slow)
        for mode in MODES
        for step in (1, 4, BATCHES, 8, 2 * BATCHES, 11)
        if not (mode == "accumulated" and step > 8)
    ],
)
def test_a_training_resumes_at_its_batch(mode: str, step: int, data: dict[str, Any], tmp_path: Path) -> None:
    assert_resumes(tmp_path, data, MODES[mode], Watch(step))


@pytest.mark.parametrize(
    "mode", ["max_epochs", *(pytest.param(m, marks=pytest.mark.slow) for m in ("max_steps", "both"))]
)
def test_a_signal_within_a_validation_stops_after_it(mode: str, data: dict[str, Any], tmp_path: Path) -> None:
    assert_resumes(tmp_path, data, MODES[mode], Watch(validation=BATCHES))


def test_sigterm_saves_as_ctrl_c_does(data: dict[str, Any], tmp_path: Path) -> None:
    assert_resumes(tmp_path, data, MODES["max_epochs"], Watch(7, number=signal.SIGTERM))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(2, 0), (0, 2), (1, 3)])
def test_workers_do_not_change_where_it_resumes(workers: tuple[int, int], data: dict[str, Any], tmp_path: Path) -> None:
    first, second = ({"workers": n} for n in workers)
    assert_resumes(tmp_path, data | first, MODES["max_epochs"], Watch(8), second)


@pytest.mark.parametrize("data", ["mapped"], indirect=True)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch_size": 16}, "batch_size 8, now 16"),
        ({"batch_size": 4}, "batch_size 8, now 4"),
        ({"split": {"train": 0.5, "validation": 0.5}}, "rows 40, now 23"),
        ({"split_seed": 1, "split": {"train": 0.8, "validation": 0.2}}, "within an epoch of other batches"),
    ],
)
def test_a_changed_order_continues_with_the_next_epoch(
    change: dict[str, Any], said: str, data: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "split_seed" in change:
        data = data | {"split": change["split"]}
    changed = mm.DataModule(**data | change)
    per_epoch = len(changed.samples.rows("train")) // changed.batch_size
    train(tmp_path / "run", data, Watch(2), max_steps=20)
    seen = train(tmp_path / "run", data | change, Watch(), resume=True, max_steps=per_epoch + 4)
    assert said in capsys.readouterr().err
    assert [step for step, _ in seen.batches] == list(range(3, per_epoch + 5))
    epoch = [key for _, keys in seen.batches[:per_epoch] for key in keys]
    assert len(epoch) == len(set(epoch)) == per_epoch * changed.batch_size  # a whole epoch without repetitions
    assert last(tmp_path / "run")["global_step"] == per_epoch + 4


@pytest.mark.parametrize("data", ["mapped"], indirect=True)
def test_a_changed_batch_size_at_the_end_of_an_epoch_needs_no_note(
    data: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "run", data, Watch(), max_epochs=1)
    seen = train(tmp_path / "run", data | {"batch_size": 20}, Watch(), resume=True, max_epochs=3)
    assert [step for step, _ in seen.batches] == [6, 7, 8, 9]
    assert "Note: the checkpoint" not in capsys.readouterr().err


@pytest.mark.parametrize("data", ["streamed"], indirect=True)
def test_a_stream_that_lost_rows_continues_with_the_next_epoch(data: dict[str, Any], tmp_path: Path) -> None:
    train(tmp_path / "run", data, Watch(4), max_steps=20)
    table = Path(data["table"])
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[:17], *(line for line in lines if "validation" in line)]) + "\n")  # two batches
    seen = train(tmp_path / "run", data, Watch(), resume=True, max_steps=8)
    assert [step for step, _ in seen.batches] == [5, 6, 7, 8]


@pytest.mark.parametrize("data", ["mapped"], indirect=True)
def test_a_run_that_is_through_says_so(
    data: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "run", data, Watch(), max_steps=3)
    assert "Nothing is left" not in capsys.readouterr().err
    assert train(tmp_path / "run", data, Watch(), resume=True, max_steps=3).batches == []
    assert "is of step 3, where the run ends (max_steps 3)" in capsys.readouterr().err
