"""A model whose modality gap is closed: its vectors, its file, and its fingerprint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from multimodal.core.calibration import Calibration
from multimodal.core.embedder import Embedder
from multimodal.core.errors import UsageError
from multimodal.core.registry import create
from multimodal.export.towers import Tower

WORDS = ["red cup", "blue cup", "red hat", "green bowl", "old vase"]


@pytest.fixture
def embedder() -> Embedder:
    torch.manual_seed(0)
    embedder = Embedder({m: create("text", "bag") for m in ("title", "text")}, dim=8)
    embedder.fit_processors({"title": WORDS, "text": WORDS})
    return embedder.eval()


def test_means_are_subtracted_and_saved(embedder: Embedder, tmp_path: Path) -> None:
    before, fingerprint = embedder.encode(title=WORDS), embedder.fingerprint
    other = embedder.encode(text=WORDS)
    embedder.calibration = Calibration()
    mean = torch.from_numpy(before.mean(axis=0))
    embedder.close_gap({"title": mean})
    centred = before - mean.numpy()
    expected = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    assert np.abs(embedder.encode(title=WORDS) - expected).max() < 1e-6
    assert np.array_equal(embedder.encode(text=WORDS), other)
    assert embedder.fingerprint != fingerprint
    assert embedder.calibration is None
    embedder.save_pretrained(tmp_path / "model")
    for modalities in (None, ["title"]):
        again = Embedder.from_pretrained(tmp_path / "model", modalities)
        assert np.array_equal(again.encode(title=WORDS), embedder.encode(title=WORDS))
        assert again.fingerprint == embedder.fingerprint
    processor = embedder.processors["title"]
    inputs = processor.collate([processor(word) for word in WORDS])
    with torch.inference_mode():
        assert np.abs(Tower(embedder, "title")(**inputs).numpy() - expected).max() < 1e-6


def test_wrong_means_are_refused(embedder: Embedder) -> None:
    with pytest.raises(UsageError, match="no modality 'image'"):
        embedder.close_gap({"image": torch.zeros(8)})
    with pytest.raises(UsageError, match=r"The mean of title has shape \(3,\), not \(8,\)"):
        embedder.close_gap({"title": torch.zeros(3)})
