"""Colours follow the sign and the size of a worth, relative to the largest."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal.media.shading import AGAINST, FOR, LEAST, MAX_OPACITY, Shading

WORTH = st.floats(-2, 2) | st.just(math.nan)


@given(st.lists(WORTH, max_size=8))
def test_opacities_are_relative_to_the_largest_worth(changes: list[float]) -> None:
    shading = Shading.of(changes)
    known = [abs(change) for change in changes if not math.isnan(change)]
    for change in changes:
        assert shading.colour(change) == (AGAINST if change < 0 else FOR)
        if math.isnan(change) or max(known) < LEAST:
            assert shading.opacity(change) == 0
        else:
            assert shading.opacity(change) == pytest.approx(MAX_OPACITY * abs(change) / max(known), abs=6e-4)
