"""Training with precomputed vectors of another system as a modality, whose encoder has no weights."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import yaml
from multimodal_encoders.text.bag_of_words import BagOfWords
from multimodal_encoders.vectors.precomputed import Precomputed
from saved_weights import SaveWeights, sgd
from torch.utils.data import DataLoader

from multimodal.cli.main import main
from multimodal.core.batch import Batch, Sample
from multimodal.core.embedder import Embedder
from multimodal.training.module import EmbedderModule

COLOURS = ["red", "green", "blue", "grey", "black", "white", "pink", "brown"]
THINGS = ["fox", "dog", "cat", "hen", "owl", "elk", "bee", "ant"]
SIF = {
    "encoders": {
        "text": {
            "class_path": "word_vectors",
            "init_args": {"weights": "words.txt", "pooling": "sif", "smoothing": 0.1},
        }
    },
    "freeze": {"text": "all"},
    "heads": {"text": "mlp", "vector": "none"},
}
NAMES = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of names, and by key vectors that are the sum of a colour's and a thing's vector."""
    monkeypatch.setenv("MULTIMODAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    colours, things = rng.normal(size=(8, 6)), rng.normal(size=(8, 6))
    np.save(tmp_path / "vectors.npy", (colours[:, None] + things).reshape(64, 6).astype(np.float16))
    (tmp_path / "vectors.json").write_text(json.dumps([f"k{n}" for n in range(64)]))
    rows = [f"k{n},{name},{'validation' if n % 5 == 0 else 'train'}" for n, name in enumerate(NAMES)]
    words = [f"{word} {' '.join(map(str, rng.normal(size=16)))}" for word in (*COLOURS, *THINGS)]
    (tmp_path / "words.txt").write_text("\n".join(words))
    (tmp_path / "names.csv").write_text("\n".join(["id,name,split", *rows, "k99,no vector,train"]) + "\n")
    return tmp_path


def configuration(folder: Path, data: dict[str, Any], **model: Any) -> str:
    encoders = {"text": {"class_path": "bag", "init_args": {"vocab_size": 200, "width": 16}}}
    encoders["vector"] = {"class_path": "precomputed", "init_args": {"file": str(folder / "vectors.npy")}}
    encoders |= model.get("encoders", {})
    settings = {
        "run": str(folder / "run"),
        "data": {"table": str(folder / "names.csv"), "columns": {"text": "name", "vector": "id"}, "key": "id"}
        | {"split": "split", "batch_size": 16, "max_rejects": 0.05}
        | data,
        "model": {"dim": 6, "heads": {"vector": "none"}}
        | {"optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}}
        | model
        | {"encoders": encoders},
        "trainer": {
            "max_steps": 100,
            "val_check_interval": 50,
            "check_val_every_n_epoch": None,
            "enable_progress_bar": False,
            "accelerator": "cpu",
        }
        | {"precision": "32-true", "log_every_n_steps": 1},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return str(folder / "config.yaml")


@pytest.mark.parametrize(
    ("data", "model"),
    [
        pytest.param({}, {}, id="plain"),
        pytest.param({}, {"freeze": {"vector": "all"}, "rates": {"text": 1.0}, "gradient_checkpointing": True}, id="frozen"),
        pytest.param({}, SIF, id="sif", marks=pytest.mark.slow),
        pytest.param({"micro_batch": 5}, {"heads": {}, "rates": {"vector": 0.5}, "layer_decay": {"vector": 0.9}}, id="parts"),
    ],
)  # fmt: skip
def test_texts_learn_to_find_vectors(data: dict[str, Any], model: dict[str, Any], folder: Path) -> None:
    (folder / "run").mkdir()
    old_reject = {
        "row": 0,
        "key": "k0",
        "column": "name",
        "value": "",
        "reason": "of another run",
        "message": "",
        "file": "",
    }
    (folder / "run" / "rejects.jsonl").write_text(json.dumps(old_reject) + "\n")
    assert main(["fit", "--debug", "--config", configuration(folder, data, **model)]) == 0
    (log,) = (folder / "run").glob("logs/*/metrics.csv")
    losses = [float(row["train/loss"]) for row in csv.DictReader(log.read_text().splitlines()) if row.get("train/loss")]
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:5])
    assert "unknown key" in (folder / "run" / "rejects.jsonl").read_text()
    assert "of another run" not in (folder / "run" / "rejects.jsonl").read_text()
    embedder = Embedder.from_pretrained(folder / "run")
    assert not list(embedder.encoder("vector").parameters())
    if model.get("heads") != {}:
        vectors = np.load(folder / "vectors.npy").astype(np.float64)
        expected = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        np.testing.assert_allclose(embedder.encode(vector=[f"k{n}" for n in range(64)]), expected, atol=1e-6)
    unseen = range(0, 64, 5)
    texts = embedder.encode(text=[NAMES[n] for n in unseen])
    ranks = np.argsort(-(texts @ embedder.encode(vector=[f"k{n}" for n in unseen]).T), axis=1)
    assert np.mean(ranks[:, 0] == np.arange(len(ranks))) > 0.3  # by chance 0.08


def samples() -> list[Sample]:
    bag = BagOfWords(200, 8)
    bag.processor.fit(NAMES)
    vectors = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    return [Sample(str(n), {"text": bag.processor(NAMES[9 * n]), "vector": vectors[n]}, str(n)) for n in range(8)]


class RankRows(torch.utils.data.IterableDataset[Batch]):
    """This rank's rows of one batch, four times; the second of two ranks has no vectors in the last one."""

    def __iter__(self) -> Any:
        from torch import distributed as dist

        rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        bag = BagOfWords(200, 8)
        bag.processor.fit(NAMES)
        processors = {"text": bag.processor, "vector": Precomputed(4).processor}
        for step in range(4):
            rows = samples()
            if step == 3:
                rows[4:] = [Sample(row.key, {"text": row.values["text"]}, row.group) for row in rows[4:]]
            yield Batch.collate(rows[rank * 8 // ranks : (rank + 1) * 8 // ranks], processors)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_processes_train_the_same_weights_as_one(tmp_path: Path) -> None:
    for devices in (1, 2):
        torch.manual_seed(0)
        encoders = {"text": BagOfWords(200, 8), "vector": Precomputed(4)}
        trainer = pl.Trainer(
            accelerator="cpu", devices=devices, strategy="ddp_spawn" if devices > 1 else "auto", max_steps=4,
            logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            limit_val_batches=0, callbacks=[SaveWeights(tmp_path)],
        )  # fmt: skip
        module = EmbedderModule(encoders, 4, heads={"vector": "none"}, freeze={"vector": "all"}, optimizer=sgd)
        trainer.fit(module, DataLoader(RankRows(), batch_size=None))
    expected, *ranks = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1"))
    for name, tensor in expected.items():
        for rank in ranks:
            torch.testing.assert_close(rank[name], tensor, rtol=1e-5, atol=1e-6)
