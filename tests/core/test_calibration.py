"""Calibrations: probabilities by isotonic regression, cut-offs by precision, and what a damaged file may hold."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from multimodal.core.calibration import (
    COMPETITORS,
    Calibration,
    ConfidenceBins,
    PairCalibration,
    confidences,
    need_calibration,
)
from multimodal.core.errors import MultimodalError, UsageError


def made(seed: int = 0, n: int = 1000) -> PairCalibration:
    draws = np.random.default_rng(seed)
    confidence = draws.random(n)
    first = ConfidenceBins.of(confidence, draws.random(n) < confidence**2)
    return PairCalibration(25.0, 0.4, first, ConfidenceBins.of(confidence / 2, draws.random(n) < 0.05), 300, n, 0.01)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=200))
def test_bins_hold_all_hits_and_probabilities_equal_scikit_learn(hits: list[tuple[float, bool]]) -> None:
    confidence, is_right = np.array([c for c, _ in hits]), np.array([r for _, r in hits])
    bins = ConfidenceBins.of(confidence, is_right)
    assert sum(bins.right) == is_right.sum()
    assert sum(bins.wrong) == (~is_right).sum()
    counts = np.add(bins.right, bins.wrong)
    expected = (
        IsotonicRegression()
        .fit(np.arange(len(counts)), np.array(bins.right) / counts, counts)
        .predict(np.arange(len(counts)))
    )
    assert bins.fitted == pytest.approx(expected)
    found = bins.probability(np.linspace(0, 1, 20))
    assert (np.diff(found) >= -1e-12).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_the_confidence_is_a_softmax_with_one_more_outcome() -> None:
    scores = np.array([[0.9, 0.5, -np.inf], [0.2, 0.1, 0.0], [-np.inf] * 3])
    found = confidences(scores, 12.0, 0.3)
    for row, of_query in zip(found, scores, strict=True):
        all_of = np.exp(12 * np.append(of_query, 0.3))
        assert row == pytest.approx(all_of[:-1] / all_of.sum())
    assert np.isfinite(confidences(np.array([[1.0, -1.0]]), 1e5, -1.0)).all()


def test_a_cut_off_keeps_hits_of_the_precision() -> None:
    pair = made(n=20_000)
    draws = np.random.default_rng(1)
    confidence = draws.random(20_000)
    is_right = draws.random(20_000) < confidence**2
    cuts = [pair.cut_off(p) for p in (0.4, 0.6, 0.8, 0.9)]
    assert cuts == sorted(cuts)
    for precision, cut in zip((0.6, 0.8, 0.9), cuts[1:], strict=True):
        kept = pair.first.probability(confidence) >= cut
        assert precision - 0.01 < is_right[kept].mean() < precision + 0.06
    assert pair.cut_off(0.9999) == float("inf")
    for wrong in (0, 1, 1.5, -0.1, float("nan")):
        with pytest.raises(UsageError, match="a fraction between 0 and 1"):
            pair.cut_off(wrong)


def test_few_hits_promise_little() -> None:
    few, many = (ConfidenceBins([0.9], [n], [0]) for n in (5, 500))
    assert PairCalibration(9.0, 0.1, few, None, 10, 10, 0.0).cut_off(0.9) == float("inf")
    assert PairCalibration(9.0, 0.1, many, None, 10, 10, 0.0).cut_off(0.9) == 1.0


def test_json_returns_the_same() -> None:
    document = Calibration({"a->b": made()}).to_json()
    again = Calibration.from_json(json.loads(json.dumps(document)))
    scores = np.sort(np.random.default_rng(0).random((5, COMPETITORS)), axis=1)[:, ::-1]
    assert np.array_equal(again.pairs["a->b"].probability(scores), made().probability(scores))
    assert again.to_json() == document
    assert again.of("b", "a") is None


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (["sharpness"], float("nan")),
        (["sharpness"], -1.0),
        (["sharpness"], 1e300),
        (["sharpness"], "20"),
        (["queries"], None),
        (["first"], None),
        (["first", "middle"], [0.5]),
        (["first", "middle"], "text"),
        (["first", "right"], []),
        (["others", "wrong"], [float("inf")] * 3),
    ],
)
def test_a_damaged_calibration_is_refused(place: list[str], value: Any) -> None:
    document = copy.deepcopy(Calibration({"a->b": made()}).to_json())
    entry: Any = document["a->b"]
    for name in place[:-1]:
        entry = entry[name]
    entry[place[-1]] = value
    with pytest.raises((ValueError, TypeError, KeyError)):
        Calibration.from_json(document)


def test_a_missing_calibration_says_what_to_do() -> None:
    with pytest.raises(MultimodalError, match=r"not calibrated.*multimodal calibrate RUN"):
        need_calibration(None, "text")
    with pytest.raises(MultimodalError, match=r"calibrated for a->b, not for queries of b"):
        need_calibration(Calibration({"a->b": made()}), "b")
