"""Small models of the encoders that come with the package, and values for them to embed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from multimodal.core import registry
from multimodal.core.embedder import Embedder

ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "image": ("cnn", {"size": 16, "drop": 0.2}),
    "graph": ("gnn", {"node_features": 2, "edge_features": 1, "width": 8, "layers": 1, "drop": 0.2}),
    "text": ("transformer", {"vocab_size": 60, "width": 8, "layers": 1, "heads": 2, "max_length": 8, "drop": 0.2}),
}


@pytest.fixture(scope="session")
def values() -> dict[str, list[Any]]:
    """Five raw values of each modality."""
    rng = np.random.default_rng(0)
    return {
        "image": [rng.integers(0, 256, (9 + n, 12), dtype=np.uint8) for n in range(5)],
        "graph": [
            {
                "x": rng.normal(size=(n + 1, 2)).tolist(),
                "edge_index": rng.integers(0, n + 1, (2, 2 * n)).tolist(),
                "edge_attr": rng.normal(size=(2 * n, 1)).tolist(),
            }
            for n in range(5)
        ],
        "text": ["fox", "a quick brown fox", "LAZY dogs, 17 of them", "jump!", "over the fence and far away again"],
    }


@pytest.fixture(scope="session")
def make_embedder(values: dict[str, list[Any]]) -> Callable[..., Embedder]:
    """A function that builds the same embedder at every call, for the named modalities (default: all three)."""

    def make(*modalities: str) -> Embedder:
        torch.manual_seed(7)
        chosen = {m: ENCODERS[m] for m in modalities or ENCODERS}
        embedder = Embedder({m: registry.create(m, name, **settings) for m, (name, settings) in chosen.items()}, dim=6)
        embedder.fit_processors({m: values[m] for m in chosen})
        return embedder.eval()

    return make


@pytest.fixture(scope="session")
def saved(make_embedder: Callable[..., Embedder], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of graphs and texts on disk; copy it to change it."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    make_embedder("graph", "text").save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    """A copy of ``saved`` that the test may change."""
    return Path(shutil.copytree(saved, tmp_path / "model"))
