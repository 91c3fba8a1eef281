"""One encoder of two modalities: it exists once, is fitted on both and is saved once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from multimodal.core.embedder import Embedder
from multimodal.core.errors import UsageError
from multimodal.core.lora import LoRA

TITLES, BODIES = ["fox", "lazy dogs"], ["a quick brown fox", "they lie in the sun"]


@pytest.fixture
def shared(make_embedder: Callable[..., Embedder]) -> Embedder:
    encoder = make_embedder("text").encoder("text")
    embedder = Embedder({"title": encoder, "body": encoder}, dim=6)
    embedder.fit_processors({"body": BODIES, "title": TITLES})
    return embedder.eval()


def test_there_is_one_encoder_with_two_heads(shared: Embedder) -> None:
    assert shared.modalities == ["title", "body"]
    assert shared.shared == {"body": "title"}
    assert shared.encoder("title") is shared.encoder("body")
    assert {name.split(".")[1] for name in shared.state_dict() if name.startswith("encoders.")} == {"title"}
    assert {name for name in shared.state_dict() if name.startswith("heads.")} == {
        f"heads.{modality}.{part}" for modality in ("title", "body") for part in ("weight", "bias")
    }
    assert not np.allclose(shared.encode(title=TITLES), shared.encode(body=TITLES))


def test_its_processor_is_fitted_to_the_values_of_both(
    shared: Embedder, make_embedder: Callable[..., Embedder]
) -> None:
    alone = make_embedder("text")
    alone.fit_processors({"text": [*TITLES, *BODIES]})
    assert shared.processors["title"].state() == alone.processors["text"].state()


@pytest.mark.parametrize("modalities", [None, ["body"], ["title"], ["body", "title"]])
def test_it_is_saved_once_and_loaded_for_either_modality(
    shared: Embedder, modalities: list[str] | None, tmp_path: Path
) -> None:
    shared.save_pretrained(tmp_path / "model")
    assert len(load_file(tmp_path / "model" / "model.safetensors")) == len(shared.state_dict())
    again = Embedder.from_pretrained(tmp_path / "model", modalities)
    assert again.modalities == modalities or (modalities is None and again.modalities == ["title", "body"])
    for modality in again.modalities:
        np.testing.assert_array_equal(
            again.encode(batch_size=256, precision="float32", **{modality: BODIES}),
            shared.encode(batch_size=256, precision="float32", **{modality: BODIES}),
        )
    assert again.fingerprint == shared.fingerprint or modalities == ["body", "title"]  # the order is part of a model


def test_one_modality_is_saved_as_a_separate_model(shared: Embedder, tmp_path: Path) -> None:
    shared.save_pretrained(tmp_path / "model")
    Embedder.from_pretrained(tmp_path / "model", ["body"]).save_pretrained(tmp_path / "part")
    assert list(json.loads((tmp_path / "part" / "embedder.json").read_text())["encoders"]) == ["body"]
    again = Embedder.from_pretrained(tmp_path / "part")
    np.testing.assert_array_equal(again.encode(body=BODIES), shared.encode(body=BODIES))


def test_adapters_are_named_by_the_first_modality(shared: Embedder, make_embedder: Callable[..., Embedder]) -> None:
    encoder = make_embedder("text").encoder("text")
    with pytest.raises(UsageError, match=r"lora.body: body shares the encoder of title; set lora.title instead"):
        Embedder({"title": encoder, "body": encoder}, lora={"body": LoRA("layers")})
