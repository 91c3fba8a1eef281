"""Components of pixels equal scikit-learn's, are saved with the model, and ignore what cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.decomposition
import torch
from multimodal_encoders.image.pca import PCA

import multimodal as mm


def pictures(n: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (n, 6, 6), dtype=np.uint8))


def features(encoder: PCA, values: list[Any]) -> np.ndarray:
    return encoder(**encoder.processor.collate([encoder.processor(value) for value in values])).numpy()


def test_features_equal_scikit_learn_up_to_signs_and_one_scale() -> None:
    encoder = PCA(size=6, width=5)
    encoder.fit([*pictures(60), b"not a picture"])
    found = features(encoder, pictures(20, seed=1))
    reference = sklearn.decomposition.PCA(5).fit(np.stack(pictures(60)).reshape(60, -1) / 255)
    expected = reference.transform(np.stack(pictures(20, seed=1)).reshape(20, -1) / 255)
    fitted = reference.transform(np.stack(pictures(60)).reshape(60, -1) / 255)
    expected /= np.sqrt((fitted**2).mean())
    assert np.abs(np.abs(found) - np.abs(expected)).max() < 1e-4
    assert (features(encoder, pictures(60)) ** 2).mean() == pytest.approx(1, rel=1e-4)


def test_few_equal_and_no_pictures() -> None:
    few = PCA(size=6, width=9)
    few.fit(pictures(3))
    found = features(few, pictures(4, seed=1))
    assert np.isfinite(found).all()
    assert (found[:, 3:] == 0).all()
    equal = PCA(size=6, width=2)
    equal.fit([pictures(1)[0]] * 5)
    assert (features(equal, pictures(2)) == 0).all()
    PCA(size=6).fit([])
    with pytest.raises(mm.UsageError, match="width at least 1"):
        PCA(width=0)


def test_a_model_with_pca_and_svd_is_trained_and_saved(tmp_path: Path) -> None:
    shades = np.random.default_rng(0).integers(0, 256, (40, 6, 6), dtype=np.uint8)
    kinds = ["train"] * 30 + ["validation"] * 10
    rows = [{"p": png(p), "t": f"shade {n} {'odd' if n % 2 else 'even'}", "s": kinds[n]} for n, p in enumerate(shades)]
    encoders = {"image": mm.create("image", "pca", size=6, width=4)}
    encoders |= {"text": mm.create("text", "svd", vocab_size=50, width=4)}
    model = mm.EmbedderModule(encoders, dim=4, seed=0)
    data = mm.DataModule(rows, {"image": "p", "text": "t"}, split="s", batch_size=10)
    settings: dict[str, Any] = {"accelerator": "cpu", "max_steps": 3, "enable_progress_bar": False}
    embedder = mm.fit(model, data, tmp_path / "run", **settings)
    again = mm.Embedder.from_pretrained(tmp_path / "run")
    for name, weight in again.state_dict().items():
        assert torch.equal(weight, embedder.state_dict()[name])
    encoder = again.encoder("image")
    assert isinstance(encoder, PCA)
    assert encoder.components.abs().sum() > 0  # fitted before training
    assert again.encode(text="shade 3 odd").shape == (4,)


def png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    from multimodal.media.image import png_file

    return png_file(Image.fromarray(pixels))
