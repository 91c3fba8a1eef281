"""Zero-shot classification against scikit-learn and a transcription of the ensemble of prompts."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, top_k_accuracy_score

from multimodal import create
from multimodal.core.embedder import Embedder
from multimodal.core.errors import UsageError
from multimodal.evaluation.zero_shot import class_vectors, zero_shot


def unit(n: int, dim: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, dim))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def embedder() -> Embedder:
    made = Embedder({"text": create("text", "bag"), "other": create("text", "bag")}, dim=8)
    made.fit_processors({"text": ["a red cup", "a blue hat"], "other": ["a red cup", "a blue hat"]})
    return made


def test_measures_are_those_of_scikit_learn() -> None:
    names = [f"class {i}" for i in range(7)]
    vectors, of_classes = unit(90, 6), unit(7, 6, seed=1)
    labels = np.random.default_rng(2).integers(0, 6, 90)  # the last class never occurs
    found = zero_shot(vectors, [names[i] for i in labels], of_classes, names)
    scores = vectors @ of_classes.T
    assert found.accuracy == pytest.approx(top_k_accuracy_score(labels, scores, k=1, labels=np.arange(7)))
    assert found.accuracy_at_5 == pytest.approx(top_k_accuracy_score(labels, scores, k=5, labels=np.arange(7)))
    assert found.balanced == pytest.approx(
        np.mean([(scores.argmax(axis=1) == labels)[labels == c].mean() for c in range(6)])
    )
    np.testing.assert_array_equal(found.confusion, confusion_matrix(labels, scores.argmax(axis=1), labels=np.arange(7)))
    assert balanced_accuracy_score([0, 1], [0, 1]) == 1


def test_equal_classes_count_against_the_model() -> None:
    found = zero_shot(np.eye(2), ["a", "b"], np.ones((2, 2)) / 2**0.5, ["a", "b"])
    assert found.accuracy == 0
    assert found.confusion.tolist() == [[0, 1], [1, 0]]


def test_a_vector_that_is_not_finite_has_no_class() -> None:
    found = zero_shot(np.array([[np.nan, 0.0], [1.0, 0.0]]), ["a", "a"], np.eye(2), ["a", "b"])
    assert (found.accuracy, found.accuracy_at_5) == (0.5, 0.5)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = [f"class {i % 7}" for i in range(50)]
    whole = zero_shot(unit(50, 6), labels, unit(7, 6, seed=1), sorted(set(labels)))
    monkeypatch.setattr("multimodal.evaluation.zero_shot.BLOCK", 20)
    blocked = zero_shot(unit(50, 6), labels, unit(7, 6, seed=1), sorted(set(labels)))
    np.testing.assert_array_equal(blocked.confusion, whole.confusion)


def test_the_vector_of_a_class_is_the_mean_over_its_prompts(embedder: Embedder) -> None:
    found = class_vectors(embedder, ["cup", "hat"], ["a red {}", "a {}"])
    for vector, name in zip(found, ["cup", "hat"], strict=True):
        mean = (embedder.encode(text=f"a red {name}") + embedder.encode(text=f"a {name}")) / 2
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)
    np.testing.assert_allclose(
        class_vectors(embedder, ["cup", "hat"], modality="other"), embedder.encode(other=["cup", "hat"]), atol=1e-6
    )


@pytest.mark.parametrize("template", ["a photo", "a {} and a {}", "a {name}", "a {0}"])
def test_templates_without_one_place_for_the_name_are_refused(embedder: Embedder, template: str) -> None:
    with pytest.raises(UsageError, match=r"must contain \{\} once"):
        class_vectors(embedder, ["cup", "hat"], [template])


def test_what_cannot_be_classified_is_refused(embedder: Embedder) -> None:
    with pytest.raises(UsageError, match="needs two classes"):
        class_vectors(embedder, ["cup"])
    with pytest.raises(UsageError, match="There is no class 'mug'"):
        zero_shot(np.eye(2), ["cup", "mug"], np.eye(2), ["cup", "hat"])
    with pytest.raises(UsageError, match="at least one value"):
        zero_shot(np.zeros((0, 2)), [], np.eye(2), ["cup", "hat"])
