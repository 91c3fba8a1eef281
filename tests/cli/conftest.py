"""A run with an untrained model of small encoders, its embeddings and its index: made once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from multimodal.core.embedder import Embedder
from multimodal.core.registry import create
from multimodal.data.run_data import load_run_data
from multimodal.search.embed import embed_samples
from multimodal.search.index import Index

DATA = {
    "table": "glyphs",
    "columns": {"image": "image", "graph": "outline", "text": "name"},
    "key": "key",
    "group": "character",
    "split": "split",
    "test": "unseen_characters",
}


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    encoders = {
        "image": create("image", "cnn", arch="resnet18", stem="standard"),
        "graph": create("graph", "gnn", width=32, layers=1),
        "text": create("text", "transformer", vocab_size=300, width=32, layers=1, heads=2),
    }
    folder = tmp_path_factory.mktemp("runs") / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed_everything": 0, "data": DATA}))
    samples = load_run_data(folder).samples
    embedder = Embedder(encoders, dim=16)
    embedder.fit_processors({"text": samples.values("text", np.arange(0, len(samples), 100))})
    embedder.save_pretrained(folder / "model")
    return folder


@pytest.fixture(scope="session")
def embeddings(run: Path) -> Path:
    """Of the validation split."""
    samples = load_run_data(run).samples
    embed_samples(Embedder.from_pretrained(run), samples, samples.rows("validation"), run / "embeddings")
    return run / "embeddings"


@pytest.fixture(scope="session")
def index(run: Path, embeddings: Path) -> Path:
    Index.build(embeddings, run / "index", engine="exact")
    return run / "index"
