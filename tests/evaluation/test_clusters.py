"""Clusters of vectors that are made from classes."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import normalized_mutual_info_score, silhouette_score

from multimodal.core.errors import UsageError
from multimodal.evaluation.clusters import measure_clusters


def around(centres: np.ndarray, each: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """``each`` unit vectors around each centre, and the numbers of the centres."""
    classes = np.repeat(np.arange(len(centres)), each)
    vectors = centres[classes] + noise * np.random.default_rng(0).normal(size=(len(classes), centres.shape[1]))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), classes


def test_clear_classes_are_found() -> None:
    vectors, classes = around(np.eye(5), each=20, noise=0.05)
    found = measure_clusters(vectors, classes)
    assert (found.nmi, found.ari, found.homogeneity, found.completeness) == pytest.approx((1, 1, 1, 1))
    assert (found.classes, found.vectors) == (5, 100)
    assert found.silhouette == pytest.approx(silhouette_score(vectors.astype(np.float32), classes, metric="cosine"))


def test_classes_that_say_nothing_about_the_vectors_agree_by_chance() -> None:
    vectors, _ = around(np.eye(5), each=40, noise=0.3)
    found = measure_clusters(vectors, np.random.default_rng(1).integers(0, 5, 200))
    assert abs(found.ari) < 0.05
    assert found.nmi < 0.1
    assert found.silhouette < 0.02


def test_one_cluster_of_two_classes_is_complete_but_not_homogeneous() -> None:
    vectors, classes = around(np.eye(3), each=30, noise=0.05)
    labels = np.where(classes == 2, 1, classes) + 10 * (np.arange(90) % 2 * (classes == 0))  # 0 falls apart in two
    found = measure_clusters(vectors, labels)
    assert 0.3 < found.nmi < 0.95
    # the two centres of the third class are found, while the halves of the first lie on one another
    assert found.homogeneity < 1
    assert found.completeness < 1
    harmonic = 2 * found.homogeneity * found.completeness / (found.homogeneity + found.completeness)
    assert found.nmi == pytest.approx(harmonic)
    assert normalized_mutual_info_score(labels, labels) == 1


@pytest.mark.parametrize("labels", [["a"] * 6, list("abcdef")])
def test_one_class_or_classes_of_one_are_refused(labels: list[str]) -> None:
    with pytest.raises(UsageError, match="at least two classes and fewer classes than vectors"):
        measure_clusters(np.eye(6), labels)


def test_equal_vectors_are_one_cluster() -> None:
    found = measure_clusters(np.ones((6, 3)) / 3**0.5, list("aabbcc"))
    assert (found.nmi, found.ari, found.homogeneity, found.completeness) == pytest.approx((0, 0, 0, 1))
