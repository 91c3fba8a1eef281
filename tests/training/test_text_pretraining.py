"""Pre-training on texts alone, and training that begins with its model."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from multimodal.cli.main import main
from multimodal.core.embedder import Embedder
from multimodal.core.errors import UsageError
from multimodal.core.registry import create
from multimodal.training.module import EmbedderModule
from multimodal.training.text_pretraining import TextPretrainingModule
from multimodal.training.warm_start import load_initial_encoders

WORDS = ["north", "south", "east", "west", "green", "blue", "red", "grey"]
TEXT = {"vocab_size": 60, "width": 16, "layers": 1, "heads": 2, "drop": 0.0}


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each text names a place four times or a colour four times: the other words determine a masked one."""
    monkeypatch.setenv("MULTIMODAL_CACHE", str(tmp_path / "cache"))
    lines = [f"{n},{' '.join([WORDS[n % 8]] * 4)},{'train' if n < 160 else 'validation'}" for n in range(200)]
    (tmp_path / "texts.csv").write_text("\n".join(["id,text,split", *lines, "x,,train", "y, ,train"]) + "\n")
    return tmp_path


def configuration(folder: Path, objective: str, steps: int, **settings: Any) -> str:
    path = folder / f"{objective}.yaml"
    model = {
        "encoders": {"text": {"class_path": "transformer", "init_args": TEXT}},
        "objective": {"class_path": f"multimodal.objectives.text_pretraining.{objective}", "init_args": settings},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
    }
    data = {"table": str(folder / "texts.csv"), "columns": {"text": "text"}, "key": "id", "split": "split"}
    trainer = {"max_steps": steps, "val_check_interval": steps // 2, "check_val_every_n_epoch": None}
    trainer |= {"enable_progress_bar": False, "accelerator": "cpu", "precision": "32-true", "log_every_n_steps": 1}
    more = {"batch_size": 32, "workers": 0, "max_rejects": 0.05}
    path.write_text(yaml.safe_dump({"data": data | more, "model": model, "trainer": trainer}))
    return str(path)


def pretrain(folder: Path, objective: str, steps: int = 40, run: str = "run", **settings: Any) -> list[dict[str, str]]:
    """Run the command and return the rows of its log."""
    config = configuration(folder, objective, steps, **settings)
    assert main(["pretrain", "--debug", "--config", config, "--run", str(folder / run)]) == 0
    (log,) = (folder / run).glob("logs/*/metrics.csv")
    return list(csv.DictReader(log.read_text().splitlines()))


def values(log: list[dict[str, str]], name: str) -> list[float]:
    return [float(row[name]) for row in log if row.get(name)]


def test_masked_words_are_predicted_from_context(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = pretrain(texts, "MaskedTokens", 60, rate=0.3)
    assert values(log, "val/loss")[-1] < 0.6 * values(log, "val/unigram")[-1]
    assert values(log, "val/accuracy")[-1] > 0.8
    assert math.isclose(values(log, "val/unigram")[0], values(log, "val/unigram")[1])  # the same words are masked
    assert "Validation at step 60: loss" in capsys.readouterr().err


@pytest.mark.parametrize("objective", ["SkipGram", "CBOW"])
def test_word_vectors_train_only_the_table(texts: Path, objective: str) -> None:
    log = pretrain(texts, objective, 40, subsample=0.0)
    assert values(log, "train/accuracy")[-1] > 0.9
    assert values(log, "val/loss")[-1] < values(log, "val/loss")[0]
    encoder = Embedder.from_pretrained(texts / "run").encoder("text")
    norms = [value for name, value in encoder.named_parameters() if "norm" in name]
    assert all(set(value.tolist()) in ({0.0}, {1.0}) for value in norms)  # as initialised


def test_the_same_seed_gives_the_same_weights(texts: Path) -> None:
    pretrain(texts, "MaskedTokens", 10, "whole")
    pretrain(texts, "MaskedTokens", 10, "again")

    def state(run: str) -> dict[str, Any]:
        return torch.load(texts / run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]

    first, again = state("whole"), state("again")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert first["objective.counts"].sum() > 0


def test_training_begins_with_pretrained_weights_and_tokenizer(texts: Path) -> None:
    pretrain(texts, "MaskedTokens", 4)
    pretrained = Embedder.from_pretrained(texts / "run")
    encoders = {"text": create("text", "transformer", **TEXT), "image": create("image", "cnn", stem="standard")}
    EmbedderModule(encoders, dim=8, begin_with={"text": str(texts / "run")})
    for name, value in pretrained.encoder("text").state_dict().items():
        assert torch.equal(encoders["text"].state_dict()[name], value)
    assert encoders["text"].processor.state() == pretrained.processors["text"].state() != {}


def test_the_module_shows_its_objective_and_its_encoder() -> None:
    first, encoder = repr(TextPretrainingModule({"text": create("text", "transformer", **TEXT)})).splitlines()
    assert first.startswith("TextPretrainingModule with MaskedTokens: Embedder of text to ")
    assert encoder.split()[:2] == ["text", "TextTransformer"]


def test_mismatched_settings_are_reported(texts: Path) -> None:
    pretrain(texts, "MaskedTokens", 2)
    run = str(texts / "run")
    with pytest.raises(UsageError, match=r"begin_with: there is no encoder for 'texts'\. Did you mean 'text'"):
        load_initial_encoders({"text": create("text", "transformer", **TEXT)}, {"texts": run})
    with pytest.raises(UsageError, match=r"does not fit TextTransformer; give both the same settings .*layers\.1"):
        load_initial_encoders({"text": create("text", "transformer", **TEXT | {"layers": 2})}, {"text": run})
    with pytest.raises(UsageError, match="no modality 'image'"):
        load_initial_encoders({"image": create("image", "cnn", stem="standard")}, {"image": run})
    with pytest.raises(UsageError, match="CNN cannot be trained on texts alone"):
        TextPretrainingModule({"image": create("image", "cnn", stem="standard")})
    with pytest.raises(UsageError, match="pretrain trains one text encoder"):
        TextPretrainingModule({})
