"""Weighted pairs: sums of judgements, with the totals of users and queries bounded."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal.monitor.feedback import VERDICTS, Judgement
from multimodal.monitor.feedback_pairs import VALUES, bound_totals, user_bound, weighted_pairs
from multimodal.monitor.position_bias import PositionBias

CUP = {"text": "a red cup"}
USUAL = PositionBias(1.0)

judgement = st.builds(
    Judgement,
    verdict=st.sampled_from(VERDICTS),
    key=st.sampled_from(["a", "b", "c"]),
    modality=st.just("image"),
    query=st.sampled_from([{"text": "one"}, {"text": "two"}, {}]),
    position=st.none() | st.integers(1, 10_000),
    query_id=st.sampled_from(["", "1", "2"]),
    user=st.sampled_from(["", "ann", "bob", "cy"]),
)


def totals(pairs: list[tuple[object, float]]) -> dict[object, float]:
    found: dict[object, float] = defaultdict(float)
    for owner, weight in pairs:
        found[owner] += abs(weight)
    return found


@given(st.lists(judgement, max_size=60), st.floats(0.1, 50), st.floats(0.1, 50))
def test_totals_are_bounded(judgements: list[Judgement], of_user: float, of_query: float) -> None:
    found = weighted_pairs(judgements, USUAL, most_of_user=of_user, most_of_query=of_query)
    assert all(total <= of_query + 1e-9 for total in totals([(p.query, p.weight) for p in found]).values())
    users = {j.user for j in judgements}
    assert sum(abs(p.weight) for p in found) <= of_user * len(users) + 1e-9
    assert all(p.weight and np.isfinite(p.weight) and p.query for p in found)


@given(st.lists(st.tuples(st.floats(-100, 100), st.sampled_from("abc")), max_size=40), st.floats(0.01, 100))
def test_bounding_keeps_proportions_and_what_is_within_the_bound(given_: list[tuple[float, str]], most: float) -> None:
    weights, owners = np.array([w for w, _ in given_]), [o for _, o in given_]
    found = bound_totals(weights, owners, most)
    before, after = totals(list(zip(owners, weights, strict=True))), totals(list(zip(owners, found, strict=True)))
    for owner, total in before.items():
        assert after[owner] == pytest.approx(min(total, most))
        of = [n for n, each in enumerate(owners) if each == owner]
        assert found[of] * total == pytest.approx(weights[of] * after[owner])


def test_the_flood_of_a_user_weighs_as_much_as_a_few_others() -> None:
    honest = [
        Judgement("clicked", "right", "image", CUP, 1, f"{user} {n}", f"user {user}")
        for user in range(30)
        for n in range(2)
    ]
    flood = [Judgement("clicked", "wrong", "image", CUP, 10, f"f {n}", "flood") for n in range(10_000)]
    weights = {p.key: p.weight for p in weighted_pairs([*flood, *honest], USUAL, most_of_query=1e9)}
    assert weights["right"] == pytest.approx(60)
    assert weights["wrong"] == pytest.approx(20)
    anonymous = [Judgement("up", "wrong", "image", CUP, 1, f"a {n}") for n in range(10_000)]  # all of one user
    weights = {p.key: p.weight for p in weighted_pairs([*anonymous, *honest], USUAL, most_of_query=1e9)}
    assert weights["wrong"] == pytest.approx(20)


def test_a_single_user_is_not_bounded_but_each_query_is() -> None:
    only = [Judgement("clicked", "a", "image", {"text": f"{n % 4}"}, 1, f"{n}") for n in range(400)]
    assert user_bound(np.ones(400), [""] * 400) == float("inf")
    assert [p.weight for p in weighted_pairs(only, USUAL)] == pytest.approx([50.0] * 4)


def test_two_users_are_bounded_by_the_smaller_one() -> None:
    assert user_bound(np.array([30.0, 5000.0]), ["a", "b"]) == 90.0


def test_repeated_verdicts_in_a_search_count_once_and_the_last_thumb_counts() -> None:
    several = [Judgement(v, "a", "image", CUP, 1, "s", "ann") for v in ("clicked", "clicked", "up", "down", "clicked")]
    (found,) = weighted_pairs(several, USUAL)
    assert found.weight == VALUES["clicked"] + VALUES["down"]
    (found,) = weighted_pairs([Judgement("clicked", "a", "image", CUP, 1) for _ in range(3)], USUAL)
    assert found.weight == 3.0  # without the name of a search they may be of several


def test_queries_of_equal_words_are_one_query() -> None:
    two = [Judgement("clicked", "a", "image", {"text": text}, 1) for text in ("a  red cup ", "a red cup")]
    assert len(weighted_pairs(two, USUAL)) == 1
    assert weighted_pairs([Judgement("up", "a", "image", {}), Judgement("unused", "", "", CUP)], USUAL) == []
