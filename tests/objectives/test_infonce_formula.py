"""The formula of InfoNCE with its options, against loops over single numbers and other libraries."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from drawn_batches import gradient, two_modalities, unit_vectors
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.losses import NTXentLoss, SupConLoss
from torch import Tensor
from torch.nn import functional

from multimodal.objectives import tiles
from multimodal.objectives.infonce import info_nce
from multimodal.objectives.pairs import GivenNegatives
from multimodal.objectives.tiles import Block


def blocks_of(logits: Tensor, groups: tuple[list[int], list[int]]) -> tuple[Block, Block]:
    """Vectors whose products are given logits ``(n, m)``."""
    identity = torch.eye(logits.shape[1], dtype=logits.dtype)
    return Block(logits, torch.tensor(groups[0])), Block(identity, torch.tensor(groups[1]))


@st.composite
def logits_and_groups(draw: st.DrawFn) -> tuple[list[list[float]], tuple[list[int], list[int]]]:
    n, m = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    logits = draw(st.lists(st.lists(st.floats(-30, 30), min_size=m, max_size=m), min_size=n, max_size=n))
    of, to = (draw(st.lists(st.integers(0, 2), min_size=size, max_size=size)) for size in (n, m))
    return logits, (of, to)


def one_direction(
    s: Any,
    of: list[int],
    to: list[int],
    smoothing: float = 0.0,
    hardness: float = 0.0,
    decoupled: bool = False,
    hard_negatives: list[tuple[int, float]] | None = None,
) -> float:
    """The formula of ``info_nce``'s docstring, number by number; hard negatives are anchors and scores."""
    terms = []
    for i, group in enumerate(of):
        positives = [j for j, g in enumerate(to) if g == group]
        negatives = [s[i][j] for j, g in enumerate(to) if g != group]
        if not positives or (decoupled and not negatives):
            continue
        negatives += [score for anchor, score in hard_negatives or () if anchor == i]
        weights = [math.exp(hardness * score) for score in negatives]
        mean = sum(weights) / len(weights) if weights else 1.0
        z = math.fsum(w / mean * math.exp(score) for w, score in zip(weights, negatives, strict=True))
        z += 0.0 if decoupled else math.fsum(math.exp(s[i][p]) for p in positives)
        drawn = (1 - smoothing) * sum(s[i][p] for p in positives) / len(positives) + smoothing * sum(s[i]) / len(to)
        terms.append(math.log(z) - drawn)
    return sum(terms) / len(terms) if terms else 0.0


@given(
    drawn=logits_and_groups(),
    smoothing=st.sampled_from([0.0, 0.1, 0.5]),
    hardness=st.sampled_from([0.0, 0.3, 1.0]),
    decoupled=st.booleans(),
    tile=st.integers(1, 6),
)
@settings(max_examples=150, deadline=None)
def test_info_nce_is_its_formula_in_tiles_of_any_size(
    drawn: tuple[list[list[float]], tuple[list[int], list[int]]],
    smoothing: float,
    hardness: float,
    decoupled: bool,
    tile: int,
) -> None:
    s, (of, to) = drawn
    transposed = [list(column) for column in zip(*s, strict=True)]
    options = (smoothing, hardness, decoupled)
    expected = (one_direction(s, of, to, *options) + one_direction(transposed, to, of, *options)) / 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE", tile)
        loss = info_nce(*blocks_of(torch.tensor(s, dtype=torch.float64), (of, to)), *options)
    assert loss.item() == pytest.approx(expected, rel=1e-10, abs=1e-10)


@given(
    drawn=logits_and_groups(),
    smoothing=st.sampled_from([0.0, 0.1]),
    hardness=st.sampled_from([0.0, 0.3]),
    decoupled=st.booleans(),
    data=st.data(),
)
@settings(max_examples=100, deadline=None)
def test_hard_negatives_count_for_their_own_anchor(
    drawn: tuple[list[list[float]], tuple[list[int], list[int]]],
    smoothing: float,
    hardness: float,
    decoupled: bool,
    data: st.DataObject,
) -> None:
    s, (of, to) = drawn
    a, b = blocks_of(torch.tensor(s, dtype=torch.float64), (of, to))
    options, expected, given_negatives = (smoothing, hardness, decoupled), 0.0, []
    for block, scores, own, other in ((a, s, of, to), (b, [list(c) for c in zip(*s, strict=True)], to, of)):
        anchors = data.draw(st.lists(st.integers(0, len(own) - 1), max_size=6))
        vectors = torch.tensor(data.draw(st.lists(st.floats(-5, 5), min_size=len(anchors), max_size=len(anchors))))
        vectors = vectors.double()[:, None].expand(-1, a.vectors.shape[1])
        negatives = GivenNegatives(torch.tensor(anchors, dtype=torch.int64), vectors)
        known = list(zip(anchors, negatives.scores(block.vectors).tolist(), strict=True))
        expected += one_direction(scores, own, other, *options, known) / 2
        given_negatives.append(negatives if anchors else None)
    assert info_nce(a, b, *options, *given_negatives).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_each_logit_s_gradient_is_its_probability_less_its_share_of_the_positives() -> None:
    s = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    of, to = [0, 1, 0, 9], [0, 0, 1, 0, 7]
    info_nce(*blocks_of(s, (of, to))).backward()
    for i in range(4):
        for j in range(5):
            expected = 0.0
            for anchor, other, a, b, logits in (
                (of[i], to[j], of, to, s[i].tolist()),
                (to[j], of[i], to, of, s[:, j].tolist()),
            ):
                if anchor in b:
                    exps, position = [math.exp(x) for x in logits], j if a is of else i
                    share = (anchor == other) / b.count(anchor)
                    expected += (exps[position] / sum(exps) - share) / sum(g in b for g in a) / 2
            assert gradient(s)[i, j].item() == pytest.approx(expected, abs=1e-12)


def test_smoothing_equals_label_smoothing_of_the_cross_entropy() -> None:
    x, y = (v.detach() for v in two_modalities(6).vectors.values())
    logits, labels = 5 * x @ y.T, torch.arange(6)
    expected = [functional.cross_entropy(each, labels, label_smoothing=0.2) for each in (logits, logits.T)]
    ours = info_nce(Block(5 * x, labels), Block(y, labels), smoothing=0.2)
    assert ours.item() == pytest.approx(sum(expected).item() / 2, rel=1e-12)  # pyright: ignore[reportAttributeAccessIssue]


def test_hard_negatives_have_the_weights_of_robinson_et_al_s_code() -> None:
    """github.com/joshr17/HCL, ``criterion`` with estimator "hard" and tau_plus = 0."""
    x, y = (v.detach() for v in two_modalities(6).vectors.values())
    temperature, beta, labels = 0.5, 0.7, torch.arange(6)

    def criterion(of: Tensor, to: Tensor) -> Tensor:
        scores = torch.exp(of @ to.T / temperature)
        pos, neg = scores.diagonal(), scores[~torch.eye(6).bool()].view(6, 5)
        imp = (beta * neg.log()).exp()
        reweight_neg = (imp * neg).sum(dim=-1) / imp.mean(dim=-1)
        return (-torch.log(pos / (pos + reweight_neg))).mean()

    ours = info_nce(Block(x / temperature, labels), Block(y, labels), hardness=beta)
    assert ours.item() == pytest.approx(((criterion(x, y) + criterion(y, x)) / 2).item(), rel=1e-12)


def test_groups_have_the_supervised_contrastive_loss_of_pytorch_metric_learning() -> None:
    groups = {"image": torch.tensor([0, 0, 1, 2, 1, 0]), "text": torch.tensor([2, 1, 0, 0, 1, 1, 3])}
    x, y = (unit_vectors(len(g), seed).detach() for seed, g in enumerate(groups.values()))
    theirs = SupConLoss(temperature=0.2)
    expected = [
        theirs(x, groups["image"], ref_emb=y, ref_labels=groups["text"]),
        theirs(y[:6], groups["text"][:6], ref_emb=x, ref_labels=groups["image"]),
    ]
    ours = info_nce(Block(x / 0.2, groups["image"]), Block(y, groups["text"]))
    assert ours.item() == pytest.approx((expected[0] + expected[1]).item() / 2, rel=1e-10)


def test_single_positives_have_the_ntxent_loss_of_pytorch_metric_learning() -> None:
    x, y = (v.detach() for v in two_modalities(6).vectors.values())
    labels = torch.arange(6)
    theirs = NTXentLoss(temperature=0.3)
    other = labels.clone()  # the same tensor would mean the same vectors
    expected = theirs(x, labels, ref_emb=y, ref_labels=other) + theirs(y, labels, ref_emb=x, ref_labels=other)
    ours = info_nce(Block(x / 0.3, labels), Block(y, labels))
    assert ours.item() == pytest.approx(expected.item() / 2, rel=1e-10)
