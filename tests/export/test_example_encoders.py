"""The example makes the model's vectors with every encoder that it covers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from node_programs import link_packages, vectors_of_node
from odd_pictures import write_pictures
from small_transformers import TEXTS, model, tokenizer

from multimodal.core.embedder import Embedder
from multimodal.core.encoder import Encoder
from multimodal.core.registry import create
from multimodal.export.folder import export

CLIP = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 16, "layers": 2, "head_width": 8},
    "text_cfg": {"context_length": 20, "width": 16, "heads": 2, "layers": 2},
}


def hugging_face(folder: Path) -> Encoder:
    tokenizer(folder)
    model(folder, "bert")
    return create("text", "huggingface", weights=str(folder))


def word_vectors(folder: Path) -> Encoder:
    (folder / "vectors.txt").write_text("red 1 0 2\nheart 0 1 1\narrow -1 1 0\n")
    return create("text", "word_vectors", weights=str(folder / "vectors.txt"), pooling="sif")


ENCODERS: dict[str, Any] = {
    "timm": lambda _: create("image", "timm", arch="test_vit"),
    "torchvision": lambda _: create("image", "torchvision", arch="squeezenet1_1"),
    "open_clip": lambda _: create("image", "open_clip", config=CLIP),
    "cnn": lambda _: create("image", "cnn", size=32, channels=3),
    "bag": lambda _: create("text", "bag", width=16),
    "svd": lambda _: create("text", "svd", width=4),
    "word_vectors": word_vectors,
    "huggingface": hugging_face,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_every_covered_encoder_has_the_same_vectors(name: str, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    encoder: Encoder = ENCODERS[name](tmp_path / "files")
    modality = "image" if encoder.processor.reads_files else "text"
    embedder = Embedder({modality: encoder}, 8)
    if name not in ("huggingface", "timm", "torchvision", "open_clip", "cnn"):
        encoder.fit([*TEXTS, *TEXTS])
    embedder.eval()
    export(embedder, "onnx", tmp_path / "out")
    link_packages(tmp_path / "out")
    (tmp_path / "pictures").mkdir()
    values = [str(path) for path in write_pictures(tmp_path / "pictures")] if modality == "image" else TEXTS
    found = vectors_of_node(tmp_path / "out", [(modality, value) for value in values])
    for value, vector in zip(values, found, strict=True):
        given: dict[str, Any] = {modality: [Path(value).read_bytes() if modality == "image" else value]}
        expected = np.asarray(embedder.encode(precision="float32", **given))[0]
        assert not isinstance(vector, str), f"{value[-50:]}: {vector}"
        np.testing.assert_allclose(vector, expected, atol=1e-4, err_msg=value[-50:])
