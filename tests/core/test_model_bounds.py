"""A saved model takes no more memory or time than its weights justify, and is loaded without a network."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from multimodal import Embedder, create
from multimodal.core import model_bounds
from multimodal.core.encoder import Encoder
from multimodal.core.errors import MultimodalError
from multimodal.core.model_bounds import NetworkRefusedError, StoredSizes, bounded_building, stored_sizes

SMALL = StoredSizes(tensors=10, numbers=1000)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Save a small text model whose settings are then changed."""

    def save(**changes: Any) -> Path:
        encoder = create("text", "transformer", width=8, layers=1, heads=2, vocab_size=40, max_length=8)
        embedder = Embedder({"text": encoder}, dim=8)
        embedder.fit_processors({"text": ["a red cup", "a red jug"]})
        embedder.save_pretrained(tmp_path / "model")
        file = tmp_path / "model" / "embedder.json"
        description = json.loads(file.read_text())
        del description["digest"]  # of what was written
        description["encoders"]["text"]["settings"] |= changes.pop("settings", {})
        description |= changes
        file.write_text(json.dumps(description))
        return tmp_path / "model"

    return save


def test_the_sizes_are_those_of_the_weights(saved: Callable[..., Path]) -> None:
    folder = saved()
    weights = Embedder.from_pretrained(folder).state_dict()
    expected = StoredSizes(len(weights), sum(tensor.numel() for tensor in weights.values()))
    assert stored_sizes(folder / "model.safetensors") == expected


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"settings": {"layers": 1000}}, "tensors"),
        ({"settings": {"width": 2**20}}, "bytes"),
        ({"settings": {"vocab_size": 10**12}}, "bytes"),
        ({"settings": {"max_length": 2**17, "width": 2**13}}, "bytes"),
        ({"dim": 10**9}, "bytes"),
    ],
)
def test_settings_that_ask_for_more_than_the_weights_are_refused_at_once(
    changes: dict[str, Any], what: str, saved: Callable[..., Path]
) -> None:
    folder, start = saved(**changes), time.process_time()
    with pytest.raises(MultimodalError, match=f"more {what} than its weights file, which holds 18 tensors"):
        Embedder.from_pretrained(folder)
    assert time.process_time() - start < 20


def _fill() -> Any:
    return torch.randn(2**15, 2**15)


def _outer() -> Any:
    return torch.ones(2**16, 1) * torch.ones(1, 2**16)


def _repeat() -> Any:
    return torch.ones(2**12).repeat(2**18)


def _clone() -> Any:
    return torch.ones(1).expand(2**32).clone()


def _many_modules() -> Any:
    return nn.Sequential(*[nn.Identity() for _ in range(20_000)])


def _hidden_by_the_library() -> Any:
    try:
        return _fill()
    except Exception as error:
        raise ValueError("something is wrong") from error


@pytest.mark.parametrize("build", [_fill, _outer, _repeat, _clone, _many_modules, _hidden_by_the_library])
def test_memory_is_refused_before_it_is_taken_however_it_is_asked_for(build: Callable[[], Any]) -> None:
    with pytest.raises(MultimodalError, match="can justify"), bounded_building(SMALL, "The model"):
        build()


def test_memory_that_is_given_back_does_not_count() -> None:
    with bounded_building(SMALL, "The model"):
        for _ in range(20):
            torch.zeros(2**24)  # 64 MiB each, of 256 that are free


def test_other_threads_are_not_bounded() -> None:
    made: list[Any] = []
    with bounded_building(SMALL, "The model"):
        thread = threading.Thread(target=lambda: made.append((torch.empty(2**28), _many_modules())))
        thread.start()
        thread.join()
    assert len(made) == 1


def test_random_weights_do_not_depend_on_the_bounds() -> None:
    torch.manual_seed(3)
    expected = nn.Linear(100, 100).weight
    torch.manual_seed(3)
    with bounded_building(SMALL, "The model"):
        assert torch.equal(nn.Linear(100, 100).weight, expected)


class Downloading(Encoder):
    """An encoder that looks something up as it is built."""

    def __init__(self, address: str = "", swallow: bool = False) -> None:
        super().__init__()
        if address:
            try:
                socket.create_connection((address, 9), timeout=1)
            except Exception as error:
                if not swallow:
                    raise OSError("offline") from error
        self.width, self.processor, self.linear = (
            4,
            create("text", "bag", vocab_size=10, width=4).processor,
            nn.Linear(1, 4),
        )

    def forward(self, terms: torch.Tensor, weights: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
        return self.linear(weights[:, None])


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The look-ups and connections that are let through to the system, or would be."""
    made: list[Any] = []
    real = {"getaddrinfo": socket.getaddrinfo, "connect": socket.socket.connect}

    def watching(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return real[name](*args, **kwargs)
            except NetworkRefusedError:
                raise
            except BaseException:
                made.append(args)
                raise

        return call

    monkeypatch.setattr(socket, "getaddrinfo", watching("getaddrinfo"))
    monkeypatch.setattr(socket.socket, "connect", watching("connect"))
    return made


def test_nothing_is_looked_up_while_a_model_is_loaded(tmp_path: Path, lookups: list[Any]) -> None:
    Embedder({"text": Downloading()}, 4).save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "embedder.json"
    description = json.loads(file.read_text())
    del description["digest"]  # of what was written
    for swallow in (False, True):
        description["encoders"]["text"]["settings"] |= {"address": "127.0.0.1", "swallow": swallow}
        file.write_text(json.dumps(description))
        if swallow:
            Embedder.from_pretrained(tmp_path / "model")
        else:
            with pytest.raises(MultimodalError, match=r"something to download \(127\.0\.0\.1\); a saved model is"):
                Embedder.from_pretrained(tmp_path / "model")
    assert not lookups


@pytest.mark.parametrize(
    ("modality", "name", "made", "hostile"),
    [
        ("image", "timm", {"arch": "test_resnet"}, {"arch": None, "weights": "hf-hub:owner/name"}),
        ("image", "timm", {"arch": "test_resnet"}, {"weights": "default"}),
        ("image", "timm", {"arch": "test_resnet"}, {"config": {"pretrained": True}}),
        ("image", "torchvision", {"arch": "resnet18"}, {"weights": "DEFAULT"}),
        ("image", "open_clip", None, {"config": None, "weights": "hf-hub:owner/name"}),
        ("image", "open_clip", None, {"config": None, "arch": "RN50", "weights": "openai"}),
        ("text", "huggingface", None, {"weights": "owner/name"}),
        ("text", "huggingface", None, {"config": "owner/name"}),
        ("text", "sentence_transformers", None, {"weights": "owner/name", "config": None}),
        ("audio", "huggingface", None, {"weights": "owner/name"}),
    ],
)
def test_a_saved_model_that_names_published_weights_makes_no_lookup(
    modality: str, name: str, made: dict[str, Any] | None, hostile: dict[str, Any], tmp_path: Path, lookups: list[Any],
) -> None:  # fmt: skip
    embedder = Embedder({modality: create("text", "bag", vocab_size=10, width=4)}, 4)
    embedder.save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "embedder.json"
    description = json.loads(file.read_text())
    del description["digest"]  # of what was written
    description["encoders"][modality] = {
        "name": name,
        "class": "x.Y",
        "settings": (made or {}) | hostile,
        "processor": {},
    }
    file.write_text(json.dumps(description))
    said = "config cannot have 'pretrained'" if "pretrained" in str(hostile) else "name something to download"
    with pytest.raises(MultimodalError, match=said):
        Embedder.from_pretrained(tmp_path / "model")
    assert not lookups


def test_models_can_be_looked_up_outside_of_loading() -> None:
    with socket.socket() as server, socket.socket() as client:
        with bounded_building(SMALL, "The model"):
            pass
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        client.connect(server.getsockname())
    assert model_bounds._refused.get() is None
