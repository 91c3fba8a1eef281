"""Learning-rate schedules against their formulas."""

from __future__ import annotations

import math

import pytest

from multimodal.core.errors import UsageError
from multimodal.training.schedule import Constant, WarmupCosine


def test_warm_up_is_linear_and_the_remainder_is_half_a_cosine() -> None:
    schedule = WarmupCosine(warmup=0.2, final=0.1)
    factors = [schedule.factor(step, 50) for step in range(50)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[10:] == pytest.approx([0.1 + 0.9 * (1 + math.cos(math.pi * i / 40)) / 2 for i in range(40)])


def test_after_the_last_step_the_factor_remains_final() -> None:
    assert WarmupCosine(final=0.25).factor(10_000, 100) == pytest.approx(0.25)


def test_without_warm_up_training_starts_at_the_full_rate() -> None:
    assert WarmupCosine(warmup=0.0).factor(0, 10) == 1.0


def test_constant_is_constant() -> None:
    assert {Constant().factor(step, 10) for step in range(10)} == {1.0}


@pytest.mark.parametrize(("warmup", "final"), [(1.0, 0.0), (-0.1, 0.0), (0.1, 1.5)])
def test_fractions_outside_their_range_are_rejected(warmup: float, final: float) -> None:
    with pytest.raises(UsageError, match="WarmupCosine"):
        WarmupCosine(warmup, final)
