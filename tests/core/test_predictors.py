"""Saved heads: probabilities as torch computes them, and model folders with and without them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.predictors import Kind, Predictor
from multimodal.core.registry import create

RNG = np.random.default_rng(5)
NAMES = ("cup", "jug", "pot")


def model() -> Embedder:
    torch.manual_seed(3)
    embedder = Embedder({"text": create("text", "bag"), "words": create("text", "bag")}, dim=8).eval()
    embedder.fit_processors({"text": ["a red cup", "a blue jug"], "words": ["pot"]})
    return embedder


def predictor(kind: Kind = "classes", dim: int = 8, modalities: tuple[str, ...] = ()) -> Predictor:
    weight, bias = RNG.normal(size=(3, dim)).astype(np.float32), RNG.normal(size=3).astype(np.float32)
    return Predictor("kind", kind, NAMES, weight, bias, modalities)


@pytest.mark.parametrize("dim", [8, 5])
@pytest.mark.parametrize("kind", ["classes", "labels", "numbers"])
def test_predictions_are_those_of_torch_on_the_normalised_prefix(kind: Kind, dim: int) -> None:
    embedder, head = model(), predictor(kind, dim)
    embedder.predictors = {"kind": head}
    texts = ["a red cup", "jug", "blue"]
    vectors = functional.normalize(torch.from_numpy(embedder.encode(text=texts))[:, :dim], dim=1)
    scores = functional.linear(vectors, torch.from_numpy(head.weight), torch.from_numpy(head.bias))
    expected = {"classes": scores.softmax(1), "labels": scores.sigmoid(), "numbers": scores}[kind]
    predictions = embedder.predict(text=texts)
    np.testing.assert_allclose(predictions.values, expected.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(embedder.predict(text=texts[1]).values, expected[1].numpy(), rtol=1e-5, atol=1e-6)
    if kind == "classes":
        assert predictions.labels == [NAMES[i] for i in expected.argmax(1).tolist()]
        assert embedder.predict(text=texts[0], target="kind").labels == predictions.labels[0]
    elif kind == "labels":
        assert predictions.labels == [[n for n, p in zip(NAMES, row, strict=True) if p >= 0.5] for row in expected]
    else:
        with pytest.raises(UsageError, match="'kind' is a target of numbers"):
            _ = predictions.labels


def test_large_scores_do_not_overflow() -> None:
    weight = np.array([[1000.0], [-1000.0]])
    kinds: list[Kind] = ["classes", "labels"]
    for kind in kinds:
        assert Predictor("t", kind, ("a", "b"), weight, np.zeros(2))(np.ones((1, 1))).values.tolist() == [[1, 0]]


def test_which_target_is_named_where_there_is_a_choice() -> None:
    embedder = model()
    with pytest.raises(UsageError, match="predicts no target: it was trained without"):
        embedder.predict(text="a")
    embedder.predictors = {"kind": predictor(), "price": predictor("numbers")}
    with pytest.raises(UsageError, match="predicts kind, price: say which one"):
        embedder.predict(text="a")
    with pytest.raises(UsageError, match=r"no target 'knid'\. Did you mean 'kind'"):
        embedder.predict(text="a", target="knid")
    assert "predicts price (3 numbers)" in repr(embedder)


def test_heads_are_saved_with_the_model_and_leave_its_fingerprint(tmp_path: Path) -> None:
    embedder = model()
    plain = embedder.fingerprint
    embedder.save_pretrained(tmp_path / "plain")
    assert "predictors" not in json.loads((tmp_path / "plain" / "embedder.json").read_text())
    embedder.predictors = {"kind": predictor(modalities=("text",)), "kind b": predictor("labels", dim=4)}
    assert embedder.fingerprint == plain
    embedder.save_pretrained(tmp_path / "model")
    for modalities in (None, ["words"]):
        loaded = Embedder.from_pretrained(tmp_path / "model", modalities)
        assert loaded.fingerprint == plain
        assert list(loaded.predictors) == ["kind", "kind b"]
        for name, head in embedder.predictors.items():
            read = loaded.predictors[name]
            assert (read.target, read.kind, read.names, read.modalities) == (
                head.target,
                head.kind,
                head.names,
                head.modalities,
            )
            assert np.array_equal(read.weight, head.weight)
            assert np.array_equal(read.bias, head.bias)
    loaded.save_pretrained(tmp_path / "again")
    assert Embedder.from_pretrained(tmp_path / "again").predictors.keys() == embedder.predictors.keys()


def save_with_changed_entry(folder: Path, **change: Any) -> Embedder:
    """Save a model with a head, change the head's entry in ``embedder.json``, and return the model."""
    embedder = model()
    embedder.predictors = {"kind": predictor()}
    embedder.save_pretrained(folder)
    path = folder / "embedder.json"
    description = json.loads(path.read_text())
    del description["digest"]  # of what was written
    description["predictors"]["kind"] |= change
    path.write_text(json.dumps(description))
    return embedder


@pytest.mark.parametrize(
    "change",
    [{"dim": 9}, {"dim": 0}, {"dim": "8"}, {"kind": "best"}, {"names": []}, {"names": [1, 2, 3]}, {"target": None}],
    ids=str,
)
def test_a_malformed_entry_is_damage(change: dict[str, Any], tmp_path: Path) -> None:
    save_with_changed_entry(tmp_path / "model", **change)
    with pytest.raises(MultimodalError, match="is damaged"):
        Embedder.from_pretrained(tmp_path / "model")


def test_weights_of_another_shape_or_not_finite_are_refused(tmp_path: Path) -> None:
    embedder = save_with_changed_entry(tmp_path / "model", names=[*predictor().names, "pan"])
    with pytest.raises(MultimodalError, match=r"first is predictors\.kind\.weight"):
        Embedder.from_pretrained(tmp_path / "model")
    embedder.predictors["kind"].weight[0, 0] = np.nan
    embedder.save_pretrained(tmp_path / "model")
    with pytest.raises(MultimodalError, match="weights that are not finite"):
        Embedder.from_pretrained(tmp_path / "model")
