"""The classifier against scikit-learn's ridge regression and ROC curve."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from multimodal.monitor.measures.classifier import areas_under_curve, cross_validated_aucs, fold_numbers


@pytest.mark.parametrize("dim", [3, 60])
def test_each_assignment_is_fitted_again(dim: int) -> None:
    rng = np.random.default_rng(dim)
    x = rng.normal(size=(50, dim))
    x -= x.mean(axis=0)
    sets = rng.random((7, 50)) < 0.4
    folds = fold_numbers(np.arange(50), rng)
    expected = []
    for current in sets:
        aucs = []
        for fold in range(5):
            held = folds == fold
            strength = 0.1 * np.square(x[~held]).sum() / dim
            model = Ridge(alpha=strength, fit_intercept=False)
            model.fit(x[~held], current[~held] - current[~held].mean())
            aucs.append(roc_auc_score(current[held], model.predict(x[held])))
        expected.append(np.mean(aucs))
    assert cross_validated_aucs(x, sets, folds, ridge=0.1) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_the_area_is_scikit_learns(rows: list[tuple[int, bool]]) -> None:
    scores = np.array([score for score, _ in rows], float)
    positive = np.array([side for _, side in rows])
    (found,) = areas_under_curve(scores[None], positive[None])
    if positive.all() or not positive.any():
        assert np.isnan(found)
    else:
        assert found == pytest.approx(roc_auc_score(positive, scores))


def test_rows_of_one_thing_are_in_one_fold() -> None:
    units = np.random.default_rng(0).integers(0, 30, 100)
    folds = fold_numbers(np.unique(units, return_inverse=True)[1], np.random.default_rng(1))
    assert all(len(set(folds[units == unit])) == 1 for unit in units)
    assert set(folds) == set(range(5))


def test_equal_rows_and_few_rows_are_not_distinguished() -> None:
    sets = np.arange(10)[None] >= 5
    assert cross_validated_aucs(np.zeros((10, 3)), sets, np.arange(10) % 5).tolist() == [0.5]
    assert cross_validated_aucs(np.ones((1, 3)), np.array([[True]]), np.zeros(1, int)).tolist() == [0.5]
