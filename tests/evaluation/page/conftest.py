"""A table of drawn signs, with hostile texts, and a small untrained model of it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from html_pages import EVIL
from PIL import Image

from multimodal.core.embedder import Embedder
from multimodal.core.registry import create

COLUMNS = {"image": "picture", "text": "title", "graph": "outline"}
TRIANGLE = {
    "x": [[0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 1.0, 0.0], [0.5, 1.0, 1.0, 0.0]],
    "edge_index": [[0, 1, 2], [1, 2, 0]],
    "edge_attr": [[1.0, 0.0, 1.0], [-0.5, 1.0, 1.0], [-0.5, -1.0, 1.0]],
}


def _picture(number: int) -> bytes:
    pixels = np.random.default_rng(number % 9).integers(0, 255, (12, 12, 3), dtype=np.uint8)  # some are equal
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def signs() -> list[dict[str, Any]]:
    """Forty rows; every fifth has no picture, every fourth no outline; texts, keys, classes and a column's name are hostile."""
    return [
        {
            "id": f"k{n} {EVIL}",
            "title": f"sign {n % 11}, {EVIL} \x00 {'long ' * (n * 3)}",
            "picture": _picture(n) if n % 5 else None,
            "outline": TRIANGLE if n % 4 else None,
            "class": f"{'abc'[n % 3]} {EVIL}",
            EVIL: n / 7,
        }
        for n in range(40)
    ]


@pytest.fixture(scope="session")
def embedder(signs: list[dict[str, Any]]) -> Embedder:
    torch.manual_seed(0)
    encoders = {
        "image": create("image", "small_cnn", size=16, widths=[8, 8]),
        "text": create("text", "bag"),
        "graph": create("graph", "gnn", width=8, layers=1),
    }
    found = Embedder(encoders, dim=8)
    found.fit_processors({"text": [row["title"] for row in signs]})
    return found
