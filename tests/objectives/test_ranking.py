"""Triplets against loops over single triplets, and against pytorch-metric-learning."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
import torch
from drawn_batches import incomplete_batches, two_modalities, unit_vectors
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner
from pytorch_metric_learning.reducers import MeanReducer

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.objectives import Triplet
from multimodal.objectives.ranking import margin_ranking


def one_direction(embeddings: Embeddings, of: str, to: str, margin: float, mining: str, only_given: bool) -> float:
    """Anchor by anchor, positive by positive, negative by negative."""
    rows, others = embeddings.rows[of].tolist(), embeddings.rows[to].tolist()
    groups = embeddings.groups.tolist()
    owner = [-1] * len(groups) if embeddings.negative_of is None else embeddings.negative_of.tolist()
    hinges = []
    for i, row in enumerate(rows):
        if owner[row] >= 0:
            continue
        score = [float(embeddings.vectors[of][i].detach() @ y) for y in embeddings.vectors[to].detach()]
        samples = [j for j, other in enumerate(others) if owner[other] < 0]
        positives = [j for j in samples if groups[others[j]] == groups[row]]
        negatives = [] if only_given else [j for j in samples if groups[others[j]] != groups[row]]
        negatives += [j for j, other in enumerate(others) if owner[other] == row]
        if mining == "hard" and positives and negatives:
            far, close = min(score[p] for p in positives), max(score[n] for n in negatives)
            hinges.append(max(0.0, margin - far + close))
        elif mining == "semi-hard":
            for p in positives:
                farther = [score[n] for n in negatives if score[n] < score[p]]
                if farther:
                    hinges.append(max(0.0, margin - score[p] + max(farther)))
    return sum(hinges) / len(hinges) if hinges else 0.0


def by_hand(embeddings: Embeddings, *options: Any) -> float:
    losses = []
    owner = embeddings.negative_of
    for a, b in combinations(embeddings.vectors, 2):
        kept = (rows if owner is None else rows[owner[rows] < 0] for rows in (embeddings.rows[a], embeddings.rows[b]))
        groups = [set(embeddings.groups[rows].tolist()) for rows in kept]
        if groups[0] & groups[1]:
            losses.append((one_direction(embeddings, a, b, *options) + one_direction(embeddings, b, a, *options)) / 2)
    return sum(losses) / len(losses) if losses else 0.0


@given(
    embeddings=incomplete_batches(),
    margin=st.floats(0.01, 2),
    mining=st.sampled_from(["hard", "semi-hard"]),
    only_given=st.booleans(),
    data=st.data(),
)
@settings(max_examples=120, deadline=None)
def test_the_loss_is_its_formula(
    embeddings: Embeddings, margin: float, mining: Any, only_given: bool, data: st.DataObject
) -> None:
    n = len(embeddings.groups)
    owners = data.draw(st.none() | st.lists(st.integers(-1, n - 1), min_size=n, max_size=n))
    embeddings = replace(embeddings, negative_of=None if owners is None else torch.tensor(owners))
    objective = Triplet(margin=margin, mining=mining, negatives="given" if only_given else "batch")
    expected = by_hand(embeddings, margin, mining, only_given)
    assert objective(embeddings).total.item() == pytest.approx(expected, rel=1e-10, abs=1e-10)


def test_hard_mining_has_the_loss_of_pytorch_metric_learning() -> None:
    labels = torch.tensor([0, 1, 2, 0, 1, 3]), torch.tensor([1, 0, 2, 2, 3, 0])
    x, y = (unit_vectors(6, seed).detach() for seed in (1, 2))
    rows = torch.arange(12)
    embeddings = Embeddings({"image": x, "text": y}, {"image": rows[:6], "text": rows[6:]}, torch.cat(labels))
    distance = CosineSimilarity()
    theirs = TripletMarginLoss(margin=0.4, distance=distance, reducer=MeanReducer())
    miner = BatchHardMiner(distance=distance)
    expected = 0.0
    for of, to, own, other in ((x, y, *labels), (y, x, *labels[::-1])):
        expected += theirs(of, own, miner(of, own, to, other), to, other).item() / 2
    assert Triplet(margin=0.4)(embeddings).total.item() == pytest.approx(expected, rel=1e-10)


def test_it_is_half_the_triplet_loss_in_squared_distances_with_twice_the_margin() -> None:
    anchor, positive, negative = (unit_vectors(8, seed).detach() for seed in (1, 2, 3))
    squared = ((anchor - positive) ** 2).sum(1) - ((anchor - negative) ** 2).sum(1) + 2 * 0.3
    ours = margin_ranking((anchor * positive).sum(1), (anchor * negative).sum(1), 0.3)
    assert ours.item() == pytest.approx(squared.relu().mean().item() / 2, rel=1e-12)


@pytest.mark.parametrize("mining", ["hard", "semi-hard"])
def test_without_negatives_loss_and_gradients_are_zero(mining: Any) -> None:
    embeddings = replace(two_modalities(3), groups=torch.zeros(3, dtype=torch.int64))
    loss = Triplet(mining=mining)(embeddings)
    loss.total.backward()
    assert loss.total.item() == 0
    assert all(v.grad is not None and not v.grad.any() for v in embeddings.vectors.values())


@pytest.mark.parametrize("margin", [0.0, -1.0, float("inf"), float("nan")])
def test_a_non_positive_margin_is_rejected(margin: float) -> None:
    with pytest.raises(UsageError, match="must be a positive number"):
        Triplet(margin=margin)


def test_unknown_kinds_of_mining_and_negatives_are_rejected() -> None:
    with pytest.raises(UsageError, match="mining must be 'hard' or 'semi-hard', not 'soft'"):
        Triplet(mining="soft")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="negatives must be 'batch' or 'given', not 'all'"):
        Triplet(negatives="all")  # pyright: ignore[reportArgumentType]
