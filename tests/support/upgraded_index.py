"""A small table in a file, its index, and two models of different width, for upgrades."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from written_folders import WORDS, write_table

from multimodal.core.embedder import Embedder
from multimodal.core.registry import create
from multimodal.data.samples import Samples
from multimodal.search.embed import embed_samples
from multimodal.search.index import Index

COLUMNS = {"text": "name", "words": "words"}


@dataclass(frozen=True)
class Upgradable:
    """What an upgrade needs.

    Attributes:
        table: a CSV file; the index has the rows of its split "train".
        old, new: folders of models.
        embeddings: those of the old model.
    """

    table: Path
    old: Path
    new: Path
    embeddings: Path

    def index(self, folder: Path, **settings: Any) -> Path:
        """Build the index of the old model in a folder, or copy it from where it was built before."""
        built = self.embeddings.with_name(" ".join(["index", *map(str, settings.values())]))
        if not built.exists():
            Index.build(self.embeddings, built, **settings).close()
        shutil.copytree(built, folder)
        return folder


def model(folder: Path, dim: int, seed: int) -> Path:
    torch.manual_seed(seed)
    shared = create("text", "bag", vocab_size=100, width=dim)  # so that the two texts of a row are near to one another
    embedder = Embedder(dict.fromkeys(COLUMNS, shared), dim=dim, heads=dict.fromkeys(COLUMNS, "none"))
    embedder.fit_processors({m: [" ".join(WORDS), *WORDS] for m in COLUMNS})
    embedder.save_pretrained(folder)
    return folder


def upgradable(folder: Path, rows: int) -> Upgradable:
    """Write the table, the models and the old model's embeddings."""
    table = write_table(folder / "table.csv", rows)
    old, new = model(folder / "old", 16, 0), model(folder / "new", 24, 1)
    samples = Samples.of(str(table), COLUMNS, split="split")
    embed_samples(Embedder.from_pretrained(old), samples, samples.rows("train"), folder / "embeddings")
    return Upgradable(table, old, new, folder / "embeddings")


def in_memory_row(key: str, text: str) -> dict[str, str]:
    return {"id": key, "name": text, "words": text}


def keys_of(folder: Path) -> list[str]:
    with Index.open(folder) as index:
        return sorted(index.items["key"].to_pylist())
