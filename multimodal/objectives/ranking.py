"""Triplet (margin ranking) losses, with negatives mined in the batch or given by the data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.objectives.objective import Loss, Objective, zero_with_gradients
from multimodal.objectives.pairs import Pair, Pairs


class Triplet(Objective):
    r"""Triplet loss: a positive should be closer than a negative by a margin. Averaged over pairs of modalities.

    For a pair (a, b), the loss is the mean of both directions, each the mean of

    .. math:: \max(0,\; \text{margin} - s_{ip} + s_{in})

    over the triplets of an anchor i, a positive p (of its group) and a negative n that the mining chooses, with s the
    cosine. On unit vectors this is half the triplet loss in squared distances with twice the margin (Schroff et al.
    2015, eq. 2), as :math:`|x - y|^2 = 2 - 2 s`. All scores of a pair are kept: memory is O(n m).

    Args:
        pairs: weight (> 0) of each pair, by a name like ``"text-image"``; ``*`` matches any modality, see ``Pairs``.
            None: every pair, with weight 1.
        margin: in cosines, above 0.
        mining: ``hard``: for each anchor its farthest positive and its closest negative (batch hard of Hermans et al.
            2017, eq. 5; with one positive each, VSE++ of Faghri et al. 2018, eq. 6). ``semi-hard``: for each anchor and
            positive the closest of the negatives that are farther than the positive (Schroff et al. 2015, eq. 4).
        negatives: which negatives to mine: ``batch``, all vectors of other groups, or ``given``, the anchor's hard
            negatives from the data. Anchors without any are left out.

    Examples:
        >>> import torch
        >>> from multimodal.core.embeddings import Embeddings
        >>> vectors, rows = torch.eye(2), torch.arange(2)  # two rows whose image and text agree
        >>> batch = Embeddings({"image": vectors, "text": vectors}, {"image": rows, "text": rows}, groups=rows)
        >>> round(Triplet(margin=1.5)(batch).total.item(), 4)  # 1.5 - 1 + 0
        0.5
    """

    def __init__(
        self,
        pairs: Mapping[str, float] | None = None,
        margin: float = 0.2,
        mining: Literal["hard", "semi-hard"] = "hard",
        negatives: Literal["batch", "given"] = "batch",
    ) -> None:
        super().__init__()
        if not 0 < margin < math.inf:
            raise UsageError(f"Triplet: margin {margin} must be a positive number.")
        self.pairs = Pairs(pairs, "Triplet")
        self.margin, self.mining, self.negatives = margin, MINING[mining], negatives

    def forward(self, embeddings: Embeddings) -> Loss:
        def of_pair(pair: Pair) -> Tensor:
            scores, positive = pair.a.vectors @ pair.b.vectors.T, pair.same_group
            negatives_to_b = negatives_to_a = ~positive
            if self.negatives == "given":
                negatives_to_b, negatives_to_a = (
                    negatives_to_b & mask for mask in given_negatives(embeddings.negative_of, *pair.rows)
                )
            a_to_b = margin_ranking(*self.mining(scores, positive, negatives_to_b), self.margin)
            b_to_a = margin_ranking(*self.mining(scores.T, positive.T, negatives_to_a.T), self.margin)
            return (a_to_b + b_to_a) / 2

        return Loss(*self.pairs.mean(embeddings, zero_with_gradients(embeddings, ()), of_pair))


def margin_ranking(positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """Mean of ``max(0, margin - positive + negative)``.

    Args:
        positive: ``(k,)`` scores.
        negative: ``(k,)`` scores.
        margin: in the same unit.

    Returns:
        A scalar; 0 if k is 0.
    """
    return (margin - positive + negative).relu().sum() / max(1, len(positive))


def hard(scores: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores of the farthest positive and the closest negative of each anchor that has both.

    Args:
        scores: ``(n, m)``.
        positive: ``(n, m)`` bool.
        negative: ``(n, m)`` bool.

    Returns:
        ``(k,)`` and ``(k,)``.
    """
    both = positive.any(1) & negative.any(1)
    scores, positive, negative = scores[both], positive[both], negative[both]
    if not len(scores):
        return scores.sum(1), scores.sum(1)
    return scores.masked_fill(~positive, torch.inf).amin(1), scores.masked_fill(~negative, -torch.inf).amax(1)


def semi_hard(scores: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores of each positive and of the closest of the negatives that are farther, where there is one.

    Args:
        scores: ``(n, m)``.
        positive: ``(n, m)`` bool.
        negative: ``(n, m)`` bool.

    Returns:
        ``(k,)`` and ``(k,)``.
    """
    ascending = scores.masked_fill(~negative, -torch.inf).sort(dim=1).values
    with torch.no_grad():
        position = torch.searchsorted(ascending, scores.contiguous()) - 1  # of the last negative below each score
        usable = positive & (position >= 0) & (ascending.gather(1, position.clamp(min=0)) > -torch.inf)
    return scores[usable], ascending.gather(1, position.clamp(min=0))[usable]


MINING = {"hard": hard, "semi-hard": semi_hard}


def given_negatives(negative_of: Tensor | None, rows_a: Tensor, rows_b: Tensor) -> tuple[Tensor, Tensor]:
    """Find the hard negatives from the data, from a to b and from b to a: ``(n, m)`` bool each.

    Args:
        negative_of: ``(rows,)`` the row that each row is a hard negative of, or -1. None: there are none.
        rows_a: ``(n,)`` the rows of the vectors of a.
        rows_b: ``(m,)`` the rows of the vectors of b.
    """
    if negative_of is None:
        nothing = rows_a.new_zeros(len(rows_a), len(rows_b), dtype=torch.bool)
        return nothing, nothing
    return rows_a[:, None] == negative_of[rows_b], negative_of[rows_a][:, None] == rows_b
