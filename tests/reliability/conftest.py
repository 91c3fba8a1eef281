"""Two small tables, a model, and its embeddings of both: made once."""

from __future__ import annotations

import pytest
import torch
import yaml
from written_folders import COLUMNS, WORDS, Material, write_table

from multimodal.core.embedder import Embedder
from multimodal.core.registry import create
from multimodal.search.embed import embed_table


@pytest.fixture(scope="package")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    folder = tmp_path_factory.mktemp("material")
    tables = (write_table(folder / "a.csv", 3000), write_table(folder / "b.csv", 2000))
    torch.manual_seed(0)
    encoders = {modality: create("text", "bag", width=32) for modality in COLUMNS}
    embedder = Embedder(encoders, dim=16)
    embedder.fit_processors({modality: list(WORDS) for modality in COLUMNS})
    embedder.save_pretrained(folder / "model")
    embeddings = (folder / "embeddings-a", folder / "embeddings-b")
    for table, out in zip(tables, embeddings, strict=True):
        embed_table(embedder, str(table), out=out, columns=COLUMNS)
    config = {
        "data": {"table": str(tables[0]), "columns": COLUMNS, "split": "split", "test": "validation", "batch_size": 50},
        "model": {"dim": 16, "encoders": {m: {"class_path": "text.bag", "init_args": {"width": 32}} for m in COLUMNS}},
        "trainer": {"max_steps": 20, "val_check_interval": 5, "enable_progress_bar": False, "accelerator": "cpu"},
    }
    (folder / "fit.yaml").write_text(yaml.safe_dump(config))
    return Material(folder, tables, folder / "model", embeddings, folder / "fit.yaml")
