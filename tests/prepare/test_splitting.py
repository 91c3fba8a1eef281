"""Splits are close to their shares, and linked rows are in one split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.prepare.splitting import assign_components, balance_mask, components, count_crossing_rows

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
links_and_groups = st.integers(1, 25).flatmap(
    lambda n: st.tuples(
        st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=15),
        st.lists(st.integers(-1, 6), min_size=n, max_size=n),
    )
)


@given(links_and_groups)
@settings(max_examples=100, deadline=None)
def test_components_join_what_links_and_groups_join(case: tuple[list[tuple[int, int]], list[int]]) -> None:
    links, groups = case
    found = components(len(groups), np.array(links, dtype=np.int64).reshape(-1, 2), np.array(groups))
    reached = [{n} for n in range(len(groups))]  # spread along links until nothing changes
    joined = [*links, *((a, b) for a in range(len(groups)) for b in range(a) if groups[a] == groups[b] != -1)]
    for _ in groups:
        for a, b in joined:
            reached[a] |= reached[b]
            reached[b] |= reached[a]
    expected = [[b in reached[a] for b in range(len(groups))] for a in range(len(groups))]
    assert (found[:, None] == found[None, :]).tolist() == expected


@given(st.lists(st.integers(1, 5), min_size=60, max_size=300), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_small_components_are_assigned_close_to_the_shares_and_never_cut(sizes: list[int], seed: int) -> None:
    component = np.repeat(np.arange(len(sizes)), sizes)
    split = assign_components(component, SHARES, seed)
    assert count_crossing_rows(component, split) == 0
    parts = np.bincount(split, minlength=3) / len(split)
    assert np.abs(parts - list(SHARES.values())).max() <= 3 / len(split) + 1e-9


def test_the_seed_decides_which_rows_go_where() -> None:
    component = np.arange(100)
    first, again, other = (assign_components(component, SHARES, seed) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_no_split_is_empty_while_another_has_two_components() -> None:
    assert np.bincount(assign_components(np.repeat(np.arange(5), 300), SHARES, 0)).tolist() == [900, 300, 300]
    assert sorted(assign_components(np.arange(3), SHARES, 0).tolist()) == [0, 1, 2]
    assert assign_components(np.zeros(7, dtype=int), SHARES, 0).tolist() == [0] * 7
    assert len(assign_components(np.zeros(0, dtype=int), SHARES, 0)) == 0


def test_rows_of_a_component_in_two_splits_are_counted() -> None:
    assert count_crossing_rows(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0])) == 2


@given(st.lists(st.integers(-1, 4), max_size=60), st.integers(0, 3))
def test_balancing_keeps_as_many_rows_of_each_value_as_the_rarest_has(values: list[int], seed: int) -> None:
    mask = balance_mask(np.array(values, dtype=np.int32), seed)
    there = [v for v in values if v != -1]
    fewest = min((there.count(v) for v in set(there)), default=0)
    kept = [v for v, keep in zip(values, mask.tolist(), strict=True) if keep]
    assert {v: kept.count(v) for v in set(kept)} == dict.fromkeys(set(there), fewest)


@pytest.mark.parametrize("count", [0, 1])
def test_few_rows_are_split(count: int) -> None:
    assert components(count, np.zeros((0, 2), dtype=np.int64), None).tolist() == [0] * count
