"""The choice of pairs, their learned parameters, and sums of positives without scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from drawn_batches import MODALITIES, embeddings_of, incomplete_batches
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.objectives.pairs import Pair, Pairs, shared_rows, sum_matched_scores
from multimodal.objectives.temperature import PairParameter, Temperature
from multimodal.objectives.tiles import Block


@pytest.mark.parametrize(
    ("weights", "chosen"),
    [
        (None, {("image", "graph"): 1, ("image", "text"): 1, ("graph", "text"): 1}),
        ({"text-image": 2.0}, {("text", "image"): 2}),
        ({"image-*": 3.0}, {("image", "graph"): 3, ("image", "text"): 3}),
        ({"*-image": 3.0}, {("graph", "image"): 3, ("text", "image"): 3}),
        ({"*-*": 1.0, "text-image": 2.0}, {("image", "graph"): 1, ("text", "image"): 2, ("graph", "text"): 1}),
        ({"text-*": 4.0, "image-*": 5.0}, {("image", "graph"): 5, ("text", "image"): 4, ("text", "graph"): 4}),
        ({"audio-*": 1.0}, {}),
        ({"audio-text": 1.0}, {}),
    ],
)
def test_names_and_stars_choose_pairs(weights: dict[str, float] | None, chosen: dict[tuple[str, str], float]) -> None:
    assert Pairs(weights, "Test").of(MODALITIES) == chosen


def test_a_pair_s_weight_does_not_depend_on_the_order_of_the_modalities() -> None:
    pairs = Pairs({"*-*": 1.0, "image-*": 2.0, "text-image": 3.0}, "Test")
    for order in (MODALITIES, MODALITIES[::-1]):
        assert {frozenset(pair): weight for pair, weight in pairs.of(order).items()} == {
            frozenset(("image", "text")): 3,
            frozenset(("image", "graph")): 2,
            frozenset(("graph", "text")): 1,
        }


def test_the_named_modalities_leave_out_the_star() -> None:
    assert Pairs({"*-*": 1.0, "image-*": 2.0, "text-image": 3.0}, "Test").modalities == {"image", "text"}
    assert Pairs(None, "Test").modalities == set()


def test_one_pair_under_two_names_is_rejected() -> None:
    with pytest.raises(UsageError, match="Test: 'image-text' and 'text-image' are the same pair; leave one out"):
        Pairs({"image-text": 1.0, "text-image": 1.0}, "Test")


@given(embeddings=incomplete_batches(), weights=st.lists(st.floats(0.1, 9), min_size=3, max_size=3))
@settings(max_examples=40, deadline=None)
def test_the_mean_weighs_the_pairs_that_match_in_the_batch(embeddings: Embeddings, weights: list[float]) -> None:
    pairs = list(combinations(MODALITIES, 2))
    chosen = Pairs({f"{a}-{b}": w for (a, b), w in zip(pairs, weights, strict=True)}, "Test")
    seen = []
    total, parts = chosen.mean(
        embeddings, torch.zeros(()), lambda pair: seen.append(pair.names) or torch.tensor(float(len(pair.a.groups)))
    )
    matching = {
        (a, b): weight
        for (a, b), weight in zip(pairs, weights, strict=True)
        if {a, b} <= set(embeddings.vectors)
        and set(embeddings.groups_of(a).tolist()) & set(embeddings.groups_of(b).tolist())
    }
    assert seen == list(matching)
    assert set(parts) == {f"{a}-{b}" for a, b in matching}
    expected = sum(w * len(embeddings.rows[a]) for (a, _), w in matching.items()) / (sum(matching.values()) or 1)
    assert total.item() == pytest.approx(expected, rel=1e-6)


def test_a_pair_finds_the_vectors_of_rows_that_have_both() -> None:
    embeddings = embeddings_of({"image": [0, 2, 3, 5], "text": [1, 2, 5]}, [0] * 6)
    found = []
    Pairs(None, "Test").mean(embeddings, torch.zeros(()), lambda pair: found.append(pair.of_same_rows()))
    assert [positions.tolist() for positions in found[0]] == [[1, 3], [1, 2]]
    assert [positions.tolist() for positions in shared_rows(torch.tensor([1]), torch.tensor([2]))] == [[], []]


def test_hard_negatives_belong_to_the_vector_of_their_own_row() -> None:
    """Rows 4 to 7 are hard negatives: texts of rows 0, 3 and 1 (which has no image), and an image of row 2."""
    embeddings = replace(
        embeddings_of({"image": [0, 2, 3, 7], "text": [1, 2, 3, 4, 5, 6]}, list(range(8))),
        negative_of=torch.tensor([-1, -1, -1, -1, 0, 3, 1, 2]),
    )
    found: list[Pair] = []
    Pairs(None, "Test").mean(embeddings, torch.zeros(()), lambda pair: found.append(pair))
    (pair,) = found
    assert [rows.tolist() for rows in pair.rows] == [[0, 2, 3], [1, 2, 3]]
    assert pair.a.groups.tolist() == [0, 2, 3]
    assert pair.negatives_of_a is not None
    assert pair.negatives_of_b is not None
    assert pair.negatives_of_a.anchors.tolist() == [0, 2]
    assert torch.equal(pair.negatives_of_a.vectors, embeddings.vectors["text"][[3, 4]])
    assert pair.negatives_of_b.anchors.tolist() == [1]
    assert torch.equal(pair.negatives_of_b.vectors, embeddings.vectors["image"][[3]])


@given(data=st.data(), n=st.integers(1, 7), m=st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_sums_of_positives_equal_sums_of_their_scores(data: st.DataObject, n: int, m: int) -> None:
    a, b = (
        Block(
            torch.randn(size, 3, dtype=torch.float64),
            torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))),
        )
        for size in (n, m)
    )
    matches = sum_matched_scores(a, b)
    scores, same = a.vectors @ b.vectors.T, a.groups[:, None] == b.groups
    shared = sorted(set(a.groups.tolist()) & set(b.groups.tolist()))
    both = (matches.counts_a > 0) & (matches.counts_b > 0)
    assert matches.counts_a[both].tolist() == [int((a.groups == group).sum()) for group in shared]
    assert matches.counts_b[both].tolist() == [int((b.groups == group).sum()) for group in shared]
    expected = [(scores * (a.groups == g)[:, None] * (b.groups == g)).sum().item() for g in shared]
    assert matches.sums[both].tolist() == pytest.approx(expected, abs=1e-12)
    assert not matches.sums[~both].any()
    assert matches.of_a.tolist() == same.sum(1).tolist()
    assert matches.of_b.tolist() == same.sum(0).tolist()


def test_all_pairs_share_one_value_or_each_name_has_one() -> None:
    shared = PairParameter(0.5, Pairs(None, "Test"), "Test", "bias")
    assert shared.of(("image", "text")) is shared.value
    assert {name: value.item() for name, value in shared.named().items()} == {"": 0.5}
    own = PairParameter({"*-*": 0.5, "image-*": 0.25}, Pairs(None, "Test"), "Test", "bias")
    values = [own.of(pair).item() for pair in [("text", "image"), ("image", "graph"), ("text", "graph")]]
    assert values == [0.25, 0.25, 0.5]
    assert {name: value.item() for name, value in own.named().items()} == {"*-*": 0.5, "image-*": 0.25}
    assert len(list(own.parameters())) == 1


@pytest.mark.parametrize(
    ("weights", "values"),
    [
        (None, {"image-text": 0.1}),
        ({"text-image": 1.0, "graph-text": 1.0}, {"text-image": 0.1}),
        ({"image-*": 1.0}, {}),
    ],
)
def test_every_pair_needs_a_value(weights: Mapping[str, float] | None, values: dict[str, float]) -> None:
    with pytest.raises(
        UsageError, match=r"Test: temperature has no value for the pair .*; add one under that name or under '\*-\*'"
    ):
        Temperature(values, 100, Pairs(weights, "Test"), "Test")


def test_per_pair_temperatures_start_at_their_initial_values() -> None:
    pairs = Pairs({"image-*": 1.0, "text-graph": 1.0}, "Test")
    temperature = Temperature({"image-*": 0.05, "graph-text": 0.2}, 100, pairs, "Test")
    assert {name: value.item() for name, value in temperature.parts().items()} == pytest.approx(
        {"temperature/image-*": 0.05, "temperature/graph-text": 0.2}
    )
    with torch.no_grad():
        temperature.log_scale.value.copy_(torch.tensor([9.0, -1.0]))
    temperature.project()
    assert temperature.log_scale.value.tolist() == pytest.approx([math.log(100), 0.0])
    with pytest.raises(UsageError, match=r"temperature 7.0 lies outside"):
        Temperature({"*-*": 7.0}, 100, pairs, "Test")
