"""Propensities against a simulation of people who look at the first hits most."""

from __future__ import annotations

import numpy as np
import pytest

from multimodal.monitor.feedback import Judgement
from multimodal.monitor.position_bias import estimate_position_bias, examination, inverse_propensity

RELEVANCE = np.array([0.9, 0.6, 0.3, 0.1, 0.05])


def simulated(eta: float, searches: int, seed: int = 0, unused: bool = True) -> list[Judgement]:
    """Searches in which five rows are shown in changing orders, and the first that is looked at and relevant is clicked."""
    draws, found = np.random.default_rng(seed), []
    for number in range(searches):
        order = draws.permutation(5)
        shown = tuple(f"row {n}" for n in order)
        looked = draws.random(5) < np.arange(1, 6) ** -eta
        clicked = np.flatnonzero(looked & (draws.random(5) < RELEVANCE[order]))
        query = {"text": f"query {number % 3}"}
        for place in clicked.tolist():
            found.append(Judgement("clicked", shown[place], "image", query, place + 1, f"{number}", shown=shown))
        if unused and not len(clicked):
            found.append(Judgement("unused", "", "image", query, None, f"{number}", shown=shown))
    return found


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, 2.0])
def test_weighted_clicks_count_the_relevance_whatever_the_position(eta: float) -> None:
    draws = np.random.default_rng(0)
    sessions = 40_000
    positions = np.arange(1, 6)
    clicks = (draws.random((sessions, 5)) < positions**-eta) & (draws.random((sessions, 5)) < RELEVANCE)
    weights = inverse_propensity(positions, eta, clip=100.0)
    found = (clicks * weights).mean(axis=0)
    errors = (clicks * weights).std(axis=0) / sessions**0.5
    assert (abs(found - RELEVANCE) < 4 * errors).all()
    if eta:  # and unweighted ones do not
        assert (abs(clicks.mean(axis=0) - RELEVANCE)[1:] > 4 * errors[1:]).all()


def test_weights_are_clipped() -> None:
    weights = inverse_propensity(np.array([1, 2, 10_000]), eta=1.0, clip=10.0)
    assert weights.tolist() == [1.0, 2.0, 10.0]
    assert examination(np.array([3]), 2.0)[0] == pytest.approx(1 / 9)


@pytest.mark.parametrize("eta", [0.5, 1.0, 1.5])
def test_the_fall_of_examination_is_estimated(eta: float) -> None:
    found = [estimate_position_bias(simulated(eta, 3000, seed)) for seed in range(8)]
    estimates = np.array([each.eta for each in found])
    assert abs(estimates.mean() - eta) < 3 * estimates.std() / 8**0.5 + 0.03
    assert all(each.error < 0.1 for each in found)
    # clicks of one row are fewer in variance than counts of rare events, on which the error is based
    assert estimates.std() < 2 * np.mean([each.error for each in found])


def test_too_little_to_estimate_from() -> None:
    assert estimate_position_bias(simulated(0.5, 30)).clicks == 0
    assert estimate_position_bias(simulated(0.5, 3000, unused=False)).eta == 1.0
    fixed = [Judgement("clicked", "a", "image", {"text": "q"}, 1, f"{n}", shown=("a", "b")) for n in range(500)]
    assert estimate_position_bias([*fixed, Judgement("unused", "", "", {"text": "q"}, None, "x")]).clicks == 0
