"""InfoNCE over pairs of modalities, with the rows of one group as positives of each other."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.objectives.objective import Loss, Objective, zero_with_gradients
from multimodal.objectives.pairs import GivenNegatives, Pair, Pairs, sum_matched_scores
from multimodal.objectives.temperature import Temperature
from multimodal.objectives.tiles import Block, Term, logsumexps


class InfoNCE(Objective):
    r"""Symmetric InfoNCE loss, averaged over pairs of modalities.

    For a pair (a, b), the loss is the mean of ``info_nce`` in both directions. The anchors of a direction are the vectors that
    have a positive: a vector of the other modality in the same group. Its candidates are all vectors of the other modality.
    Vectors of one group are never negatives of each other. A row with a missing modality counts in the pairs of those it
    has. A hard negative from the data is a candidate of its own row alone. The total is the weighted mean over the pairs
    that have a positive in the batch.

    The logits are :math:`e^{t} \langle a_i, b_j \rangle` with a learned :math:`t`; see ``Temperature``.

    Args:
        pairs: weight (> 0) of each pair, by a name like ``"text-image"``; ``*`` matches any modality, see ``Pairs``.
            None: every pair, with weight 1.
        temperature: initial temperature in [1 / max_scale, 1]; the logit scale is its inverse. A mapping gives each
            pair its own temperature.
        max_scale: upper bound of the logit scale (CLIP uses 100), at least 1.
        smoothing: fraction of the target that is spread over all candidates, in [0, 1).
        hardness: exponent that weights close negatives more, at least 0; 0 weights all equally.
        decoupled: leave the positives out of the denominator (DCL).

    Examples:
        >>> import torch
        >>> from multimodal.core.embeddings import Embeddings
        >>> vectors, rows = torch.eye(2), torch.arange(2)  # two rows whose image and text agree
        >>> batch = Embeddings({"image": vectors, "text": vectors}, {"image": rows, "text": rows}, groups=rows)
        >>> round(InfoNCE(temperature=1.0)(batch).total.item(), 4)  # log(1 + exp(-1))
        0.3133
    """

    def __init__(
        self,
        pairs: Mapping[str, float] | None = None,
        temperature: float | Mapping[str, float] = 0.07,
        max_scale: float = 100.0,
        smoothing: float = 0.0,
        hardness: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= smoothing < 1:
            raise UsageError(f"InfoNCE: smoothing {smoothing} lies outside [0, 1).")
        if not 0 <= hardness < math.inf:
            raise UsageError(f"InfoNCE: hardness {hardness} must be at least 0, and finite.")
        self.pairs = Pairs(pairs, "InfoNCE")
        self.temperature = Temperature(temperature, max_scale, self.pairs, "InfoNCE")
        self.smoothing, self.hardness, self.decoupled = smoothing, hardness, decoupled

    def forward(self, embeddings: Embeddings) -> Loss:
        self.temperature.project()
        zero = zero_with_gradients(embeddings, self.parameters())
        total, parts = self.pairs.mean(embeddings, zero, self._of_pair)
        return Loss(total, self.temperature.parts() | parts)

    def _of_pair(self, pair: Pair) -> Tensor:
        pair = self.temperature.scaled(pair)
        given = pair.negatives_of_a, pair.negatives_of_b
        return info_nce(pair.a, pair.b, self.smoothing, self.hardness, self.decoupled, *given)


def info_nce(
    a: Block,
    b: Block,
    smoothing: float = 0.0,
    hardness: float = 0.0,
    decoupled: bool = False,
    negatives_of_a: GivenNegatives | None = None,
    negatives_of_b: GivenNegatives | None = None,
) -> Tensor:
    r"""Mean over both directions of multi-positive InfoNCE, with logits :math:`s_{ij} = \langle a_i, b_j \rangle`.

    .. math:: L_{a \to b} = \frac{1}{|A|} \sum_{i \in A} \Big( \log Z_i - \sum_j q_{ij} s_{ij} \Big), \qquad
              q_{ij} = (1 - \varepsilon) \frac{[j \in P(i)]}{|P(i)|} + \frac{\varepsilon}{m}

    with A the anchors that have a positive, P(i) the positives of i (those of its group), :math:`\varepsilon` the
    smoothing, and :math:`Z_i` one of

    - :math:`\sum_j e^{s_{ij}}`. With one positive each it is the InfoNCE of CLIP (Radford et al. 2021, figure 3; van
      den Oord et al. 2018, eq. 4), with several the outer form of supervised contrastive learning (Khosla et al. 2020,
      eq. 2), with candidates of another modality.
    - :math:`N_i = \sum_{j \notin P(i)} e^{s_{ij}}` if it is decoupled (DCL, Yeh et al. 2022); anchors without
      negatives are left out.
    - hardness :math:`\beta`: negatives weighted by :math:`w_{ij} \propto e^{\beta s_{ij}}` with mean 1, so that
      :math:`N_i = (m - |P(i)|) \sum_{j \notin P(i)} e^{(1 + \beta) s_{ij}} / \sum_{j \notin P(i)} e^{\beta s_{ij}}`
      (Robinson et al. 2021 with :math:`\tau^+ = 0`; HN-NCE of Radenovic et al. 2023), and
      :math:`Z_i = \sum_{p \in P(i)} e^{s_{ip}} + N_i`.

    The hard negatives of an anchor from the data are further negatives in its :math:`Z_i`; no other anchor has them, and
    the target is not spread over them.

    Args:
        a: ``(n, d)`` vectors, already divided by the temperature, and their groups.
        b: ``(m, d)`` vectors and their groups.
        smoothing, hardness, decoupled: see above.
        negatives_of_a, negatives_of_b: hard negatives from the data; those of b are divided by the temperature too.

    Returns:
        The scalar loss; 0 (with a gradient of 0) if no anchor has a positive.
    """
    matches = sum_matched_scores(a, b)
    rows, columns = logsumexps(a, b, _terms(hardness, decoupled))
    options = smoothing, hardness, decoupled
    a_to_b = _direction(
        a.vectors, b.vectors, rows, matches.of_a, matches.sums, matches.counts_b, *options, negatives_of_a
    )
    b_to_a = _direction(
        b.vectors, a.vectors, columns, matches.of_b, matches.sums, matches.counts_a, *options, negatives_of_b
    )
    return (a_to_b + b_to_a) / 2


def _direction(
    of: Tensor,
    to: Tensor,
    logs: Tensor,
    positives: Tensor,
    sums: Tensor,
    counts: Tensor,
    smoothing: float,
    hardness: float,
    decoupled: bool,
    given: GivenNegatives | None,
) -> Tensor:
    """Compute the loss of one direction, a scalar.

    Args:
        of: ``(n, d)``, the anchors.
        to: ``(m, d)``, the candidates.
        logs: ``(k, n)``, the log-sum-exps of each anchor's terms.
        positives: ``(n,)``, how many positives each anchor has.
        sums: the sum of the scores of the positives of each group, see ``Matches``.
        counts: how many candidates each of those groups has, of the shape of ``sums``.
        smoothing, hardness, decoupled: as in ``info_nce``.
        given: hard negatives of the anchors.
    """
    needed = int(decoupled)  # negatives that an anchor must have
    anchors = (positives > 0) & (len(to) - positives >= needed)
    matched = (1 - smoothing) * (sums / counts.clamp(min=1)).where(len(to) - counts >= needed, 0.0).sum()
    if smoothing:
        matched = matched + smoothing * ((anchors.to(of.dtype) @ of) @ to.mean(0))
    negatives = len(to) - positives
    if given is not None:
        logs = _with_given(logs, given.anchors, given.scores(of), _terms(hardness, decoupled))
        negatives = negatives + given.anchors.bincount(minlength=len(of))
    denominators = _log_denominators(logs, negatives, hardness, decoupled)
    return (denominators.where(anchors, 0.0).sum() - matched) / anchors.sum().clamp(min=1)


def _terms(hardness: float, decoupled: bool) -> tuple[Term, ...]:
    if not hardness:
        return (Term("negatives" if decoupled else "all"),)
    weighted = Term("negatives", 1 + hardness), Term("negatives", hardness)
    return weighted if decoupled else (*weighted, Term("positives"))


def _with_given(logs: Tensor, anchors: Tensor, scores: Tensor, terms: tuple[Term, ...]) -> Tensor:
    """Add hard negatives from the data to the log-sum-exps of their anchors.

    Args:
        logs: ``(k, n)``, one row for each term.
        anchors: ``(p,)``, the anchor of each hard negative.
        scores: ``(p,)``, their score.
        terms: the k terms.
    """
    own, number, counts = anchors.unique(return_inverse=True, return_counts=True)
    slots = torch.empty_like(number)  # a number for each negative of the same anchor
    slots[number.argsort(stable=True)] = torch.arange(len(number), device=number.device) - (
        counts.cumsum(0) - counts
    ).repeat_interleave(counts)
    table = scores.new_full((len(own), int(counts.max())), -torch.inf).index_put((number, slots), scores)
    rows = [
        log if term.subset == "positives" else log.index_put((own,), _logsumexp_with(log[own], term.scale * table))
        for log, term in zip(logs, terms, strict=True)
    ]
    return torch.stack(rows)


def _logsumexp_with(logs: Tensor, scores: Tensor) -> Tensor:
    """Add ``(n, m)`` scores to the log-sum-exps ``(n,)``."""
    return torch.cat([logs[:, None], scores], dim=1).logsumexp(dim=1)


def _log_denominators(logs: Tensor, negatives: Tensor, hardness: float, decoupled: bool) -> Tensor:
    """Compute log Z of each anchor, ``(n,)``, from the log-sum-exps of its terms."""
    if not hardness:
        return logs[0]
    weighted = (negatives.clamp(min=1).to(logs.dtype).log() + logs[0] - logs[1]).where(negatives > 0, -torch.inf)
    return weighted if decoupled else torch.logaddexp(weighted, logs[2])
