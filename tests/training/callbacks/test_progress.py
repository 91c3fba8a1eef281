"""The progress of training counts to its end, in a terminal and in a log."""

from __future__ import annotations

import io
import re
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import lightning.pytorch as pl
import pytest
from rich.console import Console
from torch import Tensor, nn, zeros
from torch.optim import SGD
from torch.utils.data import DataLoader

from multimodal.training.callbacks import progress
from multimodal.training.callbacks.progress import Progress


class Small(pl.LightningModule):
    def __init__(self, fails_at: int = -1) -> None:
        super().__init__()
        self.net, self.fails_at = nn.Linear(2, 1), fails_at

    def training_step(self, batch: Tensor, number: int) -> Tensor:
        if self.global_step == self.fails_at:
            raise RuntimeError("broken")
        loss = self.net(batch).sum()
        self.log("train/loss", loss)
        self.log("train/samples_per_second", 1234.0)
        return loss

    def validation_step(self, batch: Tensor, number: int) -> None: ...

    def test_step(self, batch: Tensor, number: int) -> None: ...

    def predict_step(self, batch: Tensor, number: int) -> Tensor:
        return batch

    def configure_optimizers(self) -> Any:
        return SGD(self.parameters(), lr=0.1)


def trainer(**settings: Any) -> pl.Trainer:
    return pl.Trainer(
        callbacks=[Progress()],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **settings,
    )


@pytest.fixture
def loader() -> DataLoader[Any]:
    return DataLoader(zeros(8, 2), batch_size=2)  # pyright: ignore[reportArgumentType]


@pytest.fixture
def _a_line_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multimodal.core.progress.INTERVAL", 0.0)


@pytest.mark.usefixtures("_a_line_a_batch")
def test_a_log_gets_the_step_of_the_whole_training(loader: Any, capsys: pytest.CaptureFixture[str]) -> None:
    trainer(max_steps=10, num_sanity_val_steps=1).fit(Small(), loader, loader)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Validation: batch 1/1"  # the check before the training
    steps = [line for line in lines if line.startswith("Training")]
    assert len(steps) == 11  # each step, and the end
    for number, line in enumerate(steps[:-1], start=1):
        pattern = rf"Training: step {number}/10, loss -?\d+\.\d{{4}}, 1,234 samples/s, \d+ s left"
        assert re.fullmatch(pattern, line), line
    assert steps[-1].startswith("Training: step 10/10, ")
    assert steps[-1].endswith(", 0 s left")
    assert [line for line in lines if line.startswith("Validation")][1:5] == [
        f"Validation: batch {number}/4" for number in range(1, 5)
    ]


def test_a_log_gets_few_lines(loader: Any, capsys: pytest.CaptureFixture[str]) -> None:
    trainer(max_steps=40).fit(Small(), loader, loader)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1  # the end
    assert lines[0].startswith("Training: step 40/40, ")


@pytest.mark.usefixtures("_a_line_a_batch")
def test_the_time_left_is_no_longer_than_max_time(loader: Any, capsys: pytest.CaptureFixture[str]) -> None:
    trainer(max_steps=10**9, max_time=timedelta(seconds=1)).fit(Small(), loader, loader)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Training")]
    assert len(lines) > 2
    assert {line.rsplit(", ", 1)[1] for line in lines} <= {"1 s left", "0 s left"}


@pytest.mark.usefixtures("_a_line_a_batch")
def test_other_loops_show_their_batches(loader: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for call, name in (("validate", "Validation"), ("test", "Test"), ("predict", "Prediction")):
        getattr(trainer(), call)(Small(), loader)
        assert capsys.readouterr().err.splitlines() == [f"{name}: batch {number}/4" for number in range(1, 5)]


def in_a_terminal(model: pl.LightningModule, loader: Any) -> tuple[str, Progress]:
    """Train in a console of 100 characters, and return what it showed last."""
    file = io.StringIO()
    chosen = trainer(max_steps=10)
    with patch.object(progress, "Console", lambda stderr: Console(file=file, force_terminal=True, width=100)):
        try:
            chosen.fit(model, loader, loader)
        finally:
            bar = next(c for c in chosen.callbacks if isinstance(c, Progress))  # pyright: ignore[reportAttributeAccessIssue]
            shown = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", file.getvalue())
    return shown, bar


def test_a_terminal_gets_one_bar_that_ends_full(loader: Any, capsys: pytest.CaptureFixture[str]) -> None:
    shown, _ = in_a_terminal(Small(), loader)
    last = shown.strip().splitlines()[-1]
    assert re.fullmatch(r"Training ━{20,40} step 10/10, loss -?\d+\.\d{4}, 1,234 samples/s, 0 s left", last), last
    assert "Training:" not in capsys.readouterr().err


def test_an_error_frees_the_terminal(loader: Any) -> None:
    bars: list[progress.Bars] = []
    start = progress.Bars.start
    with (
        patch.object(progress.Bars, "start", lambda self: (bars.append(self), start(self))),
        pytest.raises(RuntimeError, match="broken"),
    ):
        in_a_terminal(Small(fails_at=3), loader)
    assert bars
    assert all(bar.finished or not bar.live.is_started for bar in bars)


def test_a_rank_without_output_shows_nothing(loader: Any, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = trainer(max_steps=2)
    for callback in chosen.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(callback, Progress):
            callback.disable()
    chosen.fit(Small(), loader, loader)
    assert capsys.readouterr().err == ""
