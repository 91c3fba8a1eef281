"""A small model of five modalities, its index, and clients of its server."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from served_model import COLUMNS, TOKEN, picture, table

from multimodal import create
from multimodal.core.embedder import Embedder
from multimodal.search.index import Index
from multimodal.serve.app import create_app
from multimodal.serve.limits import Limits


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    encoders = {
        "text": create("text", "bag", vocab_size=500),
        "image": create("image", "small_cnn", size=16, channels=3, widths=[8, 16], depth=1),
        "tabular": create("tabular", "mlp"),
        "graph": create("graph", "gnn", conv="gin", node_features=2, edge_features=0, width=8, layers=1),
        "audio": create("audio", "spectrogram"),
    }
    model = Embedder(encoders, dim=16)
    rows = table()
    model.fit_processors({m: [row[column] for row in rows] for m, column in COLUMNS.items()})
    return model.eval()


@pytest.fixture
def index(embedder: Embedder) -> Index:
    return Index.from_table(embedder, table(), columns=COLUMNS, key="sku")


@pytest.fixture
def app(index: Index) -> FastAPI:
    return create_app(index, Limits(max_body=2**20, timeout=20), "small", TOKEN)


@pytest.fixture(scope="module")
def module_app(embedder: Embedder) -> FastAPI:
    """An application that the tests of a module share."""
    index = Index.from_table(embedder, table(), columns=COLUMNS, key="sku")
    return create_app(index, Limits(max_body=2**20, timeout=20), "small", TOKEN)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as opened:
        yield opened


@pytest.fixture
def tone() -> bytes:
    """The bytes of a WAV file."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, 0.5 * np.sin(np.arange(16_000) / 5), 16_000, format="WAV")
    return buffer.getvalue()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A picture of the server that no request may open."""
    path = tmp_path / "secret.png"
    path.write_bytes(picture((9, 9, 9)))
    return path
