"""Ensembles score as their members do on average, and are saved, explained and exported like other models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.core import registry
from multimodal.core.embedder import Embedder, Head
from multimodal.core.ensemble import Ensemble, EnsembleProcessor, ensemble
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.lora import LoRA
from multimodal.evaluation.explain import explain
from multimodal.export.folder import export

Make = Callable[..., Embedder]
Values = dict[str, list[Any]]
TEXTS = ["a red cup", "a blue cup", "a red mug, and another one", "the teapot"]


def of_texts(
    seed: int, dim: int = 6, head: Head = "linear", shared: bool = False, lora: bool = False, **bag: Any
) -> Embedder:
    """A model of texts and words with new weights; of words by the same encoder, or by another one."""
    torch.manual_seed(seed)
    width = {"width": 8, "layers": 1, "heads": 2, "vocab_size": 80}
    text = registry.create("text", "transformer", **width) if lora else registry.create("text", "bag", width=8, **bag)
    words = text if shared else registry.create("text", "bag", width=4)
    model = Embedder(
        {"text": text, "words": words}, dim, {"text": head}, {"text": LoRA("layers", rank=2)} if lora else {}
    )
    model.fit_processors({"text": TEXTS, "words": TEXTS[seed % 2 :]})
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1)
    return model.eval()


def encoded(model: Embedder, modality: str, values: list[Any]) -> np.ndarray:
    of_modality: dict[str, Any] = {modality: values}
    return model.encode(**of_modality)


def scores_of(model: Embedder) -> np.ndarray:
    vectors = [encoded(model, name, TEXTS).astype(np.float64) for name in ("text", "words")]
    return vectors[0] @ vectors[1].T


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=4))
def test_scores_are_the_weighted_means_of_the_members(weights: list[float]) -> None:
    models = [of_texts(seed, dim=4 + seed) for seed in range(len(weights))]
    joined = ensemble(models, weights)
    assert joined.dim == sum(model.dim for model in models)
    np.testing.assert_allclose(
        scores_of(joined), np.average([scores_of(m) for m in models], axis=0, weights=weights), atol=1e-5
    )


MEMBERS: dict[str, list[dict[str, Any]]] = {
    "seeds": [{}, {}],
    "heads": [{"head": "mlp"}, {"head": "none", "dim": 8}],
    "one encoder of both modalities": [{"shared": True}, {}],
    "adapters": [{"lora": True}, {"lora": True, "shared": True}],
    "other settings": [{"longest": 0}, {"word_pairs": True}, {"lora": True}],
}


@pytest.mark.parametrize("members", MEMBERS.values(), ids=MEMBERS)
def test_models_of_all_kinds_are_joined_and_saved(members: list[dict[str, Any]], tmp_path: Path) -> None:
    models = [of_texts(seed, **options) for seed, options in enumerate(members)]
    models[0].close_gap({"text": torch.full((models[0].dim,), 0.1)})
    joined = ensemble(models)
    np.testing.assert_allclose(scores_of(joined), np.mean([scores_of(model) for model in models], axis=0), atol=1e-5)
    joined.save_pretrained(tmp_path / "model")
    loaded = Embedder.from_pretrained(tmp_path / "model")
    assert loaded.fingerprint == joined.fingerprint
    for name in ("text", "words"):
        np.testing.assert_array_equal(encoded(loaded, name, TEXTS), encoded(joined, name, TEXTS))
    alone = Embedder.from_pretrained(tmp_path / "model", ["words"])
    np.testing.assert_array_equal(alone.encode(words=TEXTS), joined.encode(words=TEXTS))


def test_pictures_and_graphs_are_joined(make_embedder: Make, values: Values) -> None:
    first, other = make_embedder(), make_embedder()
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.2)
    joined = ensemble([first, other], [3, 1])
    for modality, of_modality in values.items():
        mine, theirs, both = (encoded(model, modality, of_modality) for model in (first, other, joined))
        expected = np.concatenate([mine * 0.75**0.5, theirs * 0.25**0.5], axis=1)
        np.testing.assert_allclose(both, expected, atol=1e-6)


def test_an_ensemble_of_ensembles() -> None:
    a, b, c = (of_texts(seed) for seed in range(3))
    nested, flat = ensemble([ensemble([a, b]), c], [2, 1]), ensemble([a, b, c])
    np.testing.assert_allclose(nested.encode(text=TEXTS), flat.encode(text=TEXTS), atol=1e-6)


def test_models_are_copied_and_the_copies_are_not_trained() -> None:
    models = [of_texts(0), of_texts(1)]
    joined = ensemble(models)
    before = joined.encode(text=TEXTS)
    with torch.no_grad():
        for weight in models[0].parameters():
            weight.zero_()
    joined.fit_processors({"text": ["something else"]})
    joined.train()
    np.testing.assert_array_equal(joined.encode(text=TEXTS), before)
    assert not any(weight.requires_grad for weight in joined.parameters())


def test_members_of_equal_processors_share_an_item() -> None:
    processors = [
        ensemble([of_texts(0), other]).encoder("text").processor for other in (of_texts(2), of_texts(2, longest=0))
    ]
    assert [len(processor("a red cup")) for processor in processors] == [1, 2]
    assert all(isinstance(processor, EnsembleProcessor) for processor in processors)


def test_the_parts_of_a_value_are_worth_what_they_are_to_the_members() -> None:
    models = [of_texts(0), of_texts(1, longest=0)]
    both, *each = (
        {part.name: part.change for part in explain(model, {"text": TEXTS[2]}, {"words": TEXTS[0]}).query.parts}
        for model in (ensemble(models), *models)
    )
    assert len(both) == 6
    assert both == pytest.approx({name: np.mean([of[name] for of in each]) for name in both}, abs=1e-5)


def test_values_that_members_take_apart_differently_have_no_parts() -> None:
    models = [Embedder({"graph": registry.create("graph", name)}, 4) for name in ("molecule", "molecule")]
    molecule = ensemble(models).encoder("graph").processor
    assert molecule.parts("CCO") is not None
    mixed = EnsembleProcessor([molecule, registry.create("text", "bag").processor], [0, 1])
    assert mixed.parts("CCO") is None


@pytest.mark.parametrize(
    "change",
    [
        lambda members: members.clear(),
        lambda members: members[0].update(weight=-0.5),
        lambda members: members[0].update(weight="half"),
        lambda members: members[0].update(weight=float("nan")),
        lambda members: members[0].update(weight=float("inf")),
        lambda members: members[0].update(weight=9),
        lambda members: [member.update(weight=0) for member in members],
        lambda members: members[0].pop("model"),
        lambda members: members[0].update(modality="image"),
        lambda members: members[0]["model"].update(dim=10**9),
        lambda members: members[0]["model"]["encoders"]["text"].update(
            name="module.Class", **{"class": "module.Class"}
        ),
    ],
)
def test_a_changed_model_folder_is_refused(change: Callable[[Any], Any], tmp_path: Path) -> None:
    ensemble([of_texts(0), of_texts(1)]).save_pretrained(tmp_path)
    description = json.loads((tmp_path / "embedder.json").read_text())
    description.pop("digest")
    change(description["encoders"]["text"]["settings"]["members"])
    (tmp_path / "embedder.json").write_text(json.dumps(description))
    with pytest.raises(MultimodalError, match=r"ensemble|cannot be (built|rebuilt)|is not built"):
        Embedder.from_pretrained(tmp_path)


@pytest.mark.parametrize("to", ["torch-export", "onnx"])
def test_an_ensemble_is_exported(to: Any, tmp_path: Path) -> None:
    exported = export(ensemble([of_texts(0), of_texts(1, longest=0)]), to, tmp_path / "exported", ["text"])
    assert exported.differences["text"] < 1e-5


@pytest.mark.parametrize(
    ("models", "weights", "message"),
    [
        (1, None, "at least two models"),
        (2, [1.0], r"An ensemble of 2 models needs as many weights above 0, got \[1.0\]"),
        (2, [1.0, 0.0], "above 0"),
        (2, [1.0, float("nan")], "above 0"),
        (2, [1.0, float("inf")], "above 0"),
    ],
)
def test_too_few_models_and_wrong_weights_are_refused(models: int, weights: list[float] | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ensemble([of_texts(seed) for seed in range(models)], weights)


def test_models_of_different_modalities_are_refused(make_embedder: Make) -> None:
    with pytest.raises(UsageError, match=r"the first has graph, text, model 2 has text: they differ in 'graph'"):
        ensemble([make_embedder("graph", "text"), make_embedder("text")])


def test_an_encoder_with_optional_inputs_is_exported(tmp_path: Path) -> None:
    models = [Embedder({"graph": registry.create("graph", "molecule", width=8, layers=1)}, 4) for _ in range(2)]
    for model in models:
        model.fit_processors({"graph": ["CCO", "CCN", "c1ccccc1"]})
    assert export(ensemble(models), "onnx", tmp_path / "exported").differences["graph"] < 1e-5


@pytest.mark.parametrize("models", [["runs/a", "runs/b"], of_texts, None])
def test_what_is_not_a_list_of_models_is_refused(models: Any) -> None:
    with pytest.raises(UsageError, match="takes a list of models; for the folders of runs, use ensemble_runs"):
        ensemble(models)


def test_weights_of_other_types_are_saved(tmp_path: Path) -> None:
    models: Any = [of_texts(0), of_texts(1)]
    weights: Any = np.array([1, 3], np.float32)
    ensemble(models, weights).save_pretrained(tmp_path)
    assert ensemble(models, [1, 3]).fingerprint == Embedder.from_pretrained(tmp_path).fingerprint
    for wrong in (["half", "half"], 2, [1e308, 1e308]):
        with pytest.raises(UsageError, match="weights"):
            ensemble(models, wrong)  # pyright: ignore[reportArgumentType]


def test_an_ensemble_is_not_a_registered_encoder() -> None:
    assert not [r for r in registry.registrations() if r.cls is Ensemble]
