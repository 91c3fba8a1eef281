"""Principal components equal those of scikit-learn; degenerate spaces have coordinates too."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from sklearn.decomposition import PCA

from multimodal.core.errors import UsageError
from multimodal.evaluation.projection import check_projection, pca, umap, without_means


def test_pca_equals_that_of_sklearn_up_to_signs() -> None:
    vectors = np.random.default_rng(0).normal(size=(60, 7)) * [5, 3, 2, 1, 1, 1, 1]
    found, explained = pca(vectors)
    reference = PCA(2).fit(vectors)
    assert np.allclose(np.abs(found), np.abs(reference.transform(vectors)))
    assert explained == pytest.approx(reference.explained_variance_ratio_.sum())


@pytest.mark.parametrize("vectors", [np.ones((4, 3)), np.ones((1, 3)), np.zeros((2, 5))])
def test_equal_vectors_are_at_one_point(vectors: np.ndarray) -> None:
    found, explained = pca(vectors)
    assert (found == 0).all()
    assert np.isnan(explained)


def test_one_dimension_has_a_second_coordinate_of_zero() -> None:
    assert pca(np.array([[0.0], [2.0]]))[0].tolist() == [[-1.0, 0.0], [1.0, 0.0]]


def test_without_means_subtracts_those_of_each_kind() -> None:
    vectors = np.random.default_rng(1).normal(size=(9, 4))
    kinds = list("aabbbaccc")
    found = without_means(vectors, kinds)
    for kind in "abc":
        chosen = [k == kind for k in kinds]
        assert np.allclose(found[chosen], vectors[chosen] - vectors[chosen].mean(axis=0))


def test_an_unknown_projection_is_named() -> None:
    with pytest.raises(UsageError, match=r"no projection 'pac'.*Known: pca, umap"):
        check_projection("pac")


@pytest.mark.skipif(importlib.util.find_spec("umap") is not None, reason="umap-learn is installed")
def test_without_umap_the_extra_is_named() -> None:
    with pytest.raises(UsageError, match=r"pip install 'multimodal\[umap\]'"):
        check_projection("umap")


@pytest.mark.slow  # its library compiles for 20 seconds
@pytest.mark.filterwarnings("ignore")
def test_umap_separates_two_bundles_of_vectors() -> None:
    pytest.importorskip("umap", reason="the extra umap is not installed")
    rng = np.random.default_rng(0)
    vectors = np.repeat([[1.0, 0, 0, 0], [0, 0, 0, 1.0]], 30, axis=0) + rng.normal(size=(60, 4)) / 30
    found = umap(vectors)
    assert np.array_equal(found, umap(vectors))
    apart = np.linalg.norm(found[:30].mean(axis=0) - found[30:].mean(axis=0))
    assert apart > 2 * np.linalg.norm(found[:30] - found[:30].mean(axis=0), axis=1).mean()
