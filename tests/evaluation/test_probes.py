"""Probes against scikit-learn and plain transcriptions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from multimodal.core.errors import UsageError
from multimodal.evaluation import probes
from multimodal.evaluation.probes import Accuracy, few_shot, knn, linear_probe


def classes(n: int, noise: float, seed: int) -> tuple[np.ndarray, list[str]]:
    """Unit vectors of three classes in eight dimensions, with noise."""
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, 3, n)
    vectors = np.eye(8)[numbers] + noise * rng.normal(size=(n, 8))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), [f"class {i}" for i in numbers]


def test_accuracies_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels, predicted = (np.array(list("abc"))[rng.integers(0, 3, 50)] for _ in range(2))
    found = Accuracy.of(labels, predicted, np.array(["a", "b", "b", "c"]))
    assert found.accuracy == (labels == predicted).mean()
    assert found.balanced == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert found.majority == (labels == "b").mean()


@pytest.mark.parametrize("block", [1, 2**24])
@pytest.mark.parametrize("k", [1, 5, 1000])
def test_neighbours_vote_by_their_similarity(k: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "BLOCK", block)
    (train, train_labels), (test, test_labels) = classes(60, 0.5, 0), classes(40, 0.5, 1)
    right = 0
    for vector, label in zip(test, test_labels, strict=True):
        order = np.argsort(-(train @ vector))[:k]
        votes: dict[str, float] = {}
        for i in order:
            votes[train_labels[i]] = votes.get(train_labels[i], 0) + np.exp(train[i] @ vector / 0.07)
        right += max(votes, key=votes.__getitem__) == label
    assert knn(train, train_labels, test, test_labels, k=k).accuracy == pytest.approx(right / 40)


def test_a_linear_probe_reads_what_is_there_and_not_what_is_not() -> None:
    (train, train_labels), (test, test_labels) = classes(300, 0.3, 0), classes(300, 0.3, 1)
    found = linear_probe(train, train_labels, test, test_labels)
    assert found.accuracy > 0.9
    assert (found.classes, found.vectors) == (3, 300)
    shuffled = np.random.default_rng(2).permutation(test_labels)
    assert linear_probe(train, train_labels, test, shuffled).accuracy == pytest.approx(1 / 3, abs=0.1)


def test_regularisation_is_chosen_on_held_out_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    train, train_labels = classes(80, 1.0, 0)
    test, test_labels = classes(400, 1.0, 1)
    accuracies = {}
    for c in probes.REGULARISATIONS:
        with monkeypatch.context() as patch:
            patch.setattr(probes, "REGULARISATIONS", (c,))
            accuracies[c] = linear_probe(train, train_labels, test, test_labels).accuracy
    assert linear_probe(train, train_labels, test, test_labels).accuracy in accuracies.values()
    assert linear_probe(train, train_labels, test, test_labels).accuracy > min(accuracies.values())


def test_a_class_with_one_vector_is_fitted() -> None:
    train, labels = classes(30, 0.1, 0)
    found = linear_probe(train, ["alone", *labels[1:]], train, labels)
    assert found.classes == 4


def test_more_examples_help_up_to_those_of_the_rarest_class() -> None:
    (train, train_labels), (test, test_labels) = classes(120, 0.6, 0), classes(300, 0.6, 1)
    curve = few_shot(train, train_labels, test, test_labels)
    rarest = min(train_labels.count(name) for name in set(train_labels))
    assert [found.shots for found in curve] == [s for s in (1, 2, 4, 8, 16, 32) if s <= rarest]
    assert curve[-1].mean > curve[0].mean + 0.1
    assert curve[0].deviation > curve[-1].deviation


@pytest.mark.parametrize("probe", [knn, linear_probe, few_shot])
def test_one_class_and_nothing_to_measure_are_refused(probe: object) -> None:
    vectors = np.eye(4)
    for labels, test in ((["a"] * 4, vectors), (list("abab"), vectors[:0])):
        with pytest.raises(UsageError, match="at least two classes"):
            probe(vectors, labels, test, labels[: len(test)])  # pyright: ignore[reportCallIssue]
