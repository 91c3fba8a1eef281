"""Fingerprints identify a model by its settings, fitted processors and weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from multimodal.core import model_folder
from multimodal.core.embedder import Embedder

Make = Callable[..., Embedder]
Values = dict[str, list[Any]]


def fingerprint_of(embedder: Embedder) -> str:
    """The embedder's computed fingerprint, not an adopted one."""
    return model_folder.fingerprint(embedder.describe(), embedder.state_dict())


def test_every_weight_changes_the_fingerprint(make_embedder: Make) -> None:
    embedder = make_embedder("graph", "text")
    seen = {embedder.fingerprint}
    for weight in embedder.state_dict().values():
        with torch.no_grad():
            weight.reshape(-1)[-1] += 1
        seen.add(embedder.fingerprint)
    assert len(seen) == 1 + len(embedder.state_dict())


def test_equal_models_have_equal_fingerprints_and_others_do_not(make_embedder: Make) -> None:
    embedder = make_embedder("graph", "text")
    fingerprint = embedder.fingerprint
    assert len(fingerprint) == 64
    assert int(fingerprint, 16)
    assert make_embedder("graph", "text").fingerprint == fingerprint
    assert make_embedder("text").fingerprint != fingerprint
    embedder.fit_processors({"text": ["other words"]})
    assert embedder.fingerprint != fingerprint
    settings = make_embedder("graph", "text")
    settings.encoder("graph").settings["drop"] = 0.3
    assert settings.fingerprint != fingerprint


def _train(embedder: Embedder) -> None:
    optimizer = torch.optim.SGD(embedder.parameters(), lr=0.1)
    inputs = embedder.processors["text"].collate([embedder.processors["text"]("fox")])
    embedder.heads["text"](embedder.encoder("text")(**inputs)).sum().backward()
    optimizer.step()


def _in_place(embedder: Embedder) -> None:
    with torch.no_grad():
        embedder.heads["text"].bias[0] += 1  # pyright: ignore[reportIndexIssue, reportArgumentType, reportOperatorIssue]


def _through_data(embedder: Embedder) -> None:
    next(embedder.parameters()).data.mul_(2)


def _load(embedder: Embedder) -> None:
    embedder.load_state_dict({name: t + 1 for name, t in embedder.state_dict().items()})


def _half(embedder: Embedder) -> None:
    embedder.half()


def _fit(embedder: Embedder) -> None:
    embedder.fit_processors({"text": ["other words"]})


@pytest.mark.parametrize("change", [_train, _in_place, _load, _fit, _through_data, _half])
@pytest.mark.parametrize("modalities", [["text"], None], ids=["one modality", "the full model"])
def test_a_change_after_loading_changes_the_fingerprint(
    saved: Path, modalities: list[str] | None, change: Callable[[Embedder], None]
) -> None:
    loaded = Embedder.from_pretrained(saved, modalities)
    before = loaded.fingerprint
    change(loaded)
    assert loaded.fingerprint == fingerprint_of(loaded) != before


def test_a_partial_model_keeps_the_adopted_fingerprint_while_unchanged(make_embedder: Make) -> None:
    embedder = make_embedder("text")
    computed, bias = embedder.fingerprint, embedder.heads["text"].bias
    embedder.adopt_fingerprint("f" * 64)
    assert embedder.fingerprint == "f" * 64
    assert isinstance(bias, Tensor)
    original = bias.detach().clone()
    with torch.no_grad():
        bias.add_(1)
        assert embedder.fingerprint not in (computed, "f" * 64)
        bias.copy_(original)
    assert embedder.fingerprint == "f" * 64


def test_using_the_model_does_not_change_its_fingerprint(saved: Path, values: Values) -> None:
    loaded = Embedder.from_pretrained(saved, ["text"])
    before = loaded.fingerprint
    loaded.encode(text=values["text"])
    loaded.train().eval().requires_grad_(False)
    loaded.state_dict()
    assert loaded.fingerprint == before != fingerprint_of(loaded)
