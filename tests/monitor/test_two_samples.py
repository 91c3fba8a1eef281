"""The comparison of two sets: it finds shifts, and alarms without any no more often than it says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from multimodal.monitor.two_samples import compare_sets

DIM = 16


def normal(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.standard_normal((count, DIM)).astype(np.float32)


def alarms(make: object, draws: int, **options: object) -> int:
    found = 0
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        reference, current, more = make(rng)  # pyright: ignore[reportCallIssue]
        found += compare_sets(reference, current, rng, permutations=99, **options, **more).p_value <= 0.05
    return found


def independent(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, dict[str, object]]:
    return normal(rng, 60), normal(rng, 30), {}


def repeated(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, dict[str, object]]:
    """Few values, each of which is in many rows: ties between neighbours."""
    values = normal(np.random.default_rng(0), 5)
    return values[rng.integers(0, 5, 50)], values[rng.integers(0, 5, 40)], {}


def same_things(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, dict[str, object]]:
    things = 3 * normal(rng, 50)
    return things + normal(rng, 50), things + normal(rng, 50), {"paired": True}


def overlapping(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, dict[str, object]]:
    things = 3 * normal(rng, 60)
    same = np.where(np.arange(50) < 30, np.arange(50), -1)
    first, second = things[:40], np.concatenate([things[:30], things[40:]])
    return first + normal(rng, 40), second + normal(rng, 50), {"same": same}


@pytest.mark.parametrize("make", [independent, repeated, same_things, overlapping])
def test_false_alarms_are_as_rare_as_the_level(make: object) -> None:
    draws = 60
    assert alarms(make, draws) <= binom.ppf(0.9999, draws, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("make", [independent, repeated, same_things])
def test_the_false_alarm_rate_is_the_level(make: object) -> None:
    draws = 1000
    low, high = binom.ppf([0.0005, 0.9995], draws, 0.05)
    assert low <= alarms(make, draws) <= high


def test_a_shift_of_the_mean_is_found() -> None:
    assert alarms(lambda rng: (normal(rng, 80), normal(rng, 80) + 0.3, {}), 10) >= 9


def test_another_spread_is_found() -> None:
    def make(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, dict[str, object]]:
        return normal(rng, 150), normal(rng, 150) * np.linspace(0.5, 1.5, DIM, dtype=np.float32), {}

    assert alarms(make, 10) >= 9
    reference, current, _ = make(np.random.default_rng(0))
    found = compare_sets(reference, current, np.random.default_rng(0), permutations=199)
    assert found.p_values["covariance"] < 0.05
    assert found.p_values["mean"] > 0.05


def test_the_same_things_moved_a_little_are_found_only_as_pairs() -> None:
    def make(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, dict[str, object]]:
        things = 3 * normal(rng, 60)
        return things, things + 0.3 * normal(rng, 60) + 0.2, {}

    assert alarms(make, 10, paired=True) == 10
    assert alarms(make, 10, same=np.arange(60)) == 0


def test_the_values_are_those_of_the_formulas() -> None:
    rng = np.random.default_rng(0)
    reference, current = normal(rng, 70), normal(rng, 50) + 0.5
    found = compare_sets(reference, current, rng, permutations=9)
    spread = np.sqrt(reference.var(axis=0).sum())
    shift = np.linalg.norm(reference.mean(axis=0) - current.mean(axis=0))
    assert found.values["mean"] == pytest.approx(shift / spread, rel=1e-4)
    assert found.rows == (70, 50)
    assert set(found.values) == set(found.p_values)
    assert all(0.1 <= p <= 1 for p in found.p_values.values())  # 1 / (permutations + 1) at least


@pytest.mark.parametrize("rows", [(1, 1), (1, 5), (30, 30)])
def test_equal_vectors_do_not_differ(rows: tuple[int, int]) -> None:
    sets = [np.tile(np.eye(1, DIM, dtype=np.float32), (count, 1)) for count in rows]
    found = compare_sets(sets[0], sets[1], np.random.default_rng(0), permutations=99)
    assert all(p == 1 for name, p in found.p_values.items() if name != "neighbours")  # whose ties are broken at random
    assert found.values["classifier"] == 0.5
    assert found.values["mean"] == found.values["covariance"] == 0


def test_a_seed_gives_the_same_numbers() -> None:
    sets = np.random.default_rng(0).standard_normal((2, 30, DIM)).astype(np.float32)
    first, second = (compare_sets(sets[0], sets[1], np.random.default_rng(3), permutations=99) for _ in range(2))
    assert first == second
