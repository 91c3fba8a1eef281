"""A run that was stopped and resumed equals an uninterrupted run."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from multimodal.cli.main import main
from multimodal.core.embedder import Embedder
from multimodal.core.lora import LoRA
from multimodal.training.callbacks.throughput import Throughput

STEPS, EPOCH, VALIDATE_EVERY = 10, 4, 5  # as in the small configuration
STOPPED = 128 + signal.SIGINT


def fit(config: Path, run: Path, *more: str) -> int:
    return main(["fit", "--debug", "--config", str(config), "--run", str(run), *more])


def state(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def curve(run: Path) -> list[tuple[str, str]]:
    """Return (step, loss) of every session of the run."""
    import csv

    rows = [
        row for log in sorted(run.glob("logs/*/metrics.csv")) for row in csv.DictReader(log.read_text().splitlines())
    ]
    return [(row["step"], row["train/loss"]) for row in rows if row["train/loss"]]


@pytest.fixture
def uninterrupted(small_config: Path, tmp_path: Path) -> Path:
    assert fit(small_config, tmp_path / "whole") == 0
    return tmp_path / "whole"


def assert_equal_weights(a: Path, b: Path) -> None:
    one, other = state(a), state(b)
    assert one["global_step"] == other["global_step"] == STEPS
    assert one["state_dict"].keys() == other["state_dict"].keys()
    different = [name for name, t in one["state_dict"].items() if not torch.equal(t, other["state_dict"][name])]
    assert different == []


def test_the_same_seed_gives_the_same_curve_and_another_seed_another(
    small_config: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    assert fit(small_config, tmp_path / "again") == 0
    assert_equal_weights(uninterrupted, tmp_path / "again")
    assert len(curve(uninterrupted)) == STEPS
    assert curve(uninterrupted) == curve(tmp_path / "again")
    assert fit(small_config, tmp_path / "other", "--seed_everything", "1") == 0
    assert curve(uninterrupted) != curve(tmp_path / "other")


@pytest.mark.parametrize(
    "step", [pytest.param(1, marks=pytest.mark.slow), EPOCH, pytest.param(VALIDATE_EVERY, marks=pytest.mark.slow), 7]
)
def test_ctrl_c_writes_a_checkpoint_and_the_resumed_run_equals_an_uninterrupted_one(
    step: int,
    small_config: Path,
    uninterrupted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    capsys.readouterr()
    with monkeypatch.context() as patch:
        stop_at(step, lambda: os.kill(os.getpid(), signal.SIGINT), patch)
        assert fit(small_config, tmp_path / "cut") == STOPPED
    assert "--ckpt_path last" in capsys.readouterr().err
    assert state(tmp_path / "cut")["global_step"] == step
    assert fit(small_config, tmp_path / "cut", "--ckpt_path", "last") == 0
    assert_equal_weights(uninterrupted, tmp_path / "cut")
    assert curve(uninterrupted) == curve(tmp_path / "cut")


def test_a_crashed_run_resumes_from_its_last_validation(
    small_config: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        stop_at(8, fail, patch)
        assert fit(small_config, tmp_path / "cut") == 1
    assert state(tmp_path / "cut")["global_step"] == VALIDATE_EVERY
    assert fit(small_config, tmp_path / "cut", "--ckpt_path", "last") == 0
    assert_equal_weights(uninterrupted, tmp_path / "cut")


@pytest.fixture
def streamed_config(tmp_path: Path) -> Path:
    """Two texts of 46 things in three files, read as a stream: four batches of training an epoch."""
    things = [
        {
            "name": f"thing {n}",
            "words": f"{'odd' if n % 2 else 'even'} number {n}",
            "split": "train" if n > 5 else "validation",
        }
        for n in range(46)
    ]
    for number in range(3):
        (tmp_path / f"shard-{number}.jsonl").write_text("".join(json.dumps(t) + "\n" for t in things[number::3]))
    encoder = {"class_path": "multimodal_encoders.text.transformer.TextTransformer"}
    encoder["init_args"] = {"width": 16, "layers": 1, "heads": 2, "vocab_size": 100, "drop": 0.1}  # pyright: ignore
    config = {
        "data": {
            "table": f"{tmp_path}/shard-*.jsonl",
            "columns": {"text": "name", "words": "words"},
            "split": "split",
            "access": "streamed",
            "buffer": 12,
            "batch_size": 10,
        },
        "model": {"dim": 8, "encoders": {"text": encoder, "words": encoder}},
        "trainer": {
            "max_steps": STEPS,
            "val_check_interval": VALIDATE_EVERY,
            "check_val_every_n_epoch": None,
            "enable_progress_bar": False,
            "log_every_n_steps": 1,
        },
    }
    (tmp_path / "streamed.yaml").write_text(yaml.safe_dump(config))
    return tmp_path / "streamed.yaml"


@pytest.mark.parametrize("step", [*(pytest.param(step, marks=pytest.mark.slow) for step in (1, 2, 7)), 4])
def test_a_stopped_stream_resumes_at_its_sample(
    step: int, streamed_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fit(streamed_config, tmp_path / "whole", "--data.workers", "1") == 0
    with monkeypatch.context() as patch:
        stop_at(step, lambda: os.kill(os.getpid(), signal.SIGINT), patch)
        assert fit(streamed_config, tmp_path / "cut") == STOPPED
    assert state(tmp_path / "cut")["global_step"] == step
    assert fit(streamed_config, tmp_path / "cut", "--ckpt_path", "last") == 0
    assert_equal_weights(tmp_path / "whole", tmp_path / "cut")
    assert curve(tmp_path / "whole") == curve(tmp_path / "cut")


def test_a_frozen_encoder_of_a_stream_runs_at_every_step_and_is_unchanged(
    streamed_config: Path, tmp_path: Path
) -> None:
    for name, steps in (("short", VALIDATE_EVERY), ("long", STEPS)):
        frozen = ["--model.freeze.text", "all", "--trainer.max_steps", str(steps)]
        assert fit(streamed_config, tmp_path / name, *frozen) == 0
    short, long = state(tmp_path / "short")["state_dict"], state(tmp_path / "long")["state_dict"]
    changed = {name for name, t in long.items() if not torch.equal(t, short[name])}
    assert not {name for name in changed if name.startswith("embedder.encoders.text")}
    assert {"embedder.heads.text.weight", "embedder.encoders.words.tokens.weight"} <= changed


def stop_at(step: int, action: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Call ``action`` in the middle of a step."""

    def in_step(self: Throughput, trainer: Any, *rest: Any) -> None:
        if trainer.global_step == step - 1:
            action()

    monkeypatch.setattr(Throughput, "on_train_batch_start", in_step)


def test_a_frozen_encoder_runs_once_over_the_rows_and_is_unchanged(
    small_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from multimodal_encoders.image.timm import Timm

    monkeypatch.setattr("multimodal.data.datamodule.default_cache", lambda: tmp_path / "cache")
    seen: list[int] = []
    forward = Timm.forward
    monkeypatch.setattr(Timm, "forward", lambda self, pixels: (seen.append(len(pixels)), forward(self, pixels))[1])
    frozen = ["--model.freeze.image", "all"]
    assert fit(small_config, tmp_path / "one", *frozen) == 0
    assert sum(seen) == 140 + 20  # the rows of training and of validation, once, though there are three epochs
    one = state(tmp_path / "one")
    assert fit(small_config, tmp_path / "two", *frozen) == 0
    assert sum(seen) == 160
    assert_equal_weights(tmp_path / "one", tmp_path / "two")
    assert fit(small_config, tmp_path / "short", *frozen, "--trainer.max_steps", str(VALIDATE_EVERY)) == 0
    half = state(tmp_path / "short")["state_dict"]
    changed = {name for name, t in one["state_dict"].items() if not torch.equal(t, half[name])}
    assert not {name for name in changed if name.startswith("embedder.encoders.image")}
    assert {"embedder.heads.image.weight", "embedder.encoders.graph.nodes.0.weight"} <= changed


def test_a_fine_tuning_run_resumes_from_its_configuration(
    small_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = yaml.safe_load(small_config.read_text())
    config["model"] |= {
        "heads": {"graph": "none", "text": "mlp"},
        "freeze": {"image": {0: "all", 4: "net.(conv1|bn1|layer[12])", 8: "none"}},
        "lora": {"text": {"targets": "layers", "rank": 2}},
        "rates": {"image": 0.1},
        "layer_decay": {"image": 0.7},
        "gradient_checkpointing": True,
    }
    small_config.write_text(yaml.safe_dump(config))
    assert fit(small_config, tmp_path / "whole") == 0
    with monkeypatch.context() as patch:
        stop_at(6, lambda: os.kill(os.getpid(), signal.SIGINT), patch)
        assert fit(small_config, tmp_path / "cut") == STOPPED
    assert fit(small_config, tmp_path / "cut", "--ckpt_path", "last") == 0
    assert_equal_weights(tmp_path / "whole", tmp_path / "cut")
    assert curve(tmp_path / "whole") == curve(tmp_path / "cut")
    saved = Embedder.from_pretrained(tmp_path / "whole")
    assert saved.head_kinds == {"image": "linear", "graph": "none", "text": "mlp"}
    assert saved.lora == {"text": LoRA("layers", rank=2)}
    assert (saved.encode(text=["arrow"]) ** 2).sum() == pytest.approx(1)
