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
from multimodal.objectives.pairs import GivenNegatives, Pair, Pairs


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
        negatives: which negatives to mine: ``batch``, all vectors of other groups and the anchor's hard negatives from
            the data, or ``given``, the latter alone. Anchors without any are left out.

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
        return Loss(*self.pairs.mean(embeddings, zero_with_gradients(embeddings, ()), self._of_pair))

    def _of_pair(self, pair: Pair) -> Tensor:
        scores, positive = pair.a.vectors @ pair.b.vectors.T, pair.same_group
        a_to_b = self._direction(scores, positive, pair.a.vectors, pair.negatives_of_a)
        b_to_a = self._direction(scores.T, positive.T, pair.b.vectors, pair.negatives_of_b)
        return (a_to_b + b_to_a) / 2

    def _direction(self, scores: Tensor, positive: Tensor, of: Tensor, given: GivenNegatives | None) -> Tensor:
        """Compute the loss of one direction, a scalar.

        Args:
            scores: ``(n, m)``, of each anchor and each candidate.
            positive: ``(n, m)`` bool, which of them match.
            of: ``(n, d)``, the anchors.
            given: hard negatives of the anchors.
        """
        negative = torch.zeros_like(positive) if self.negatives == "given" else ~positive
        if given is not None:
            own = given.anchors == torch.arange(len(of), device=of.device)[:, None]
            scores = torch.cat([scores, of @ given.vectors.T], dim=1)
            positive = torch.cat([positive, torch.zeros_like(own)], dim=1)
            negative = torch.cat([negative, own], dim=1)
        return margin_ranking(*self.mining(scores, positive, negative), self.margin)


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
