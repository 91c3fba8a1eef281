"""InfoNCE over pairs of modalities, with the rows of one group as positives of each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import chain, combinations

import torch
from torch import Tensor, nn

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.objectives.objective import Loss, Objective


def info_nce(logits: Tensor, positive: Tensor) -> Tensor:
    r"""Multi-positive InfoNCE in one direction.

    .. math:: L = \frac{1}{|A|} \sum_{i \in A} \frac{-1}{|P(i)|} \sum_{p \in P(i)}
              \log \frac{\exp(s_{ip})}{\sum_{j} \exp(s_{ij})}

    with A the anchors that have a positive. With one positive each it is the InfoNCE of CLIP (Radford et al. 2021,
    figure 3; van den Oord et al. 2018, eq. 4), with several the outer form of supervised contrastive learning (Khosla
    et al. 2020, eq. 2), with the candidates of another modality.

    Args:
        logits: ``(n, m)`` floating point, similarity of anchor i and candidate j over the temperature.
        positive: ``(n, m)`` bool, whether candidate j is a positive of anchor i.

    Returns:
        The scalar loss; 0 (with a gradient of 0) if no anchor has a positive.
    """
    count = positive.sum(dim=1)
    log_probability = logits.log_softmax(dim=1)
    per_anchor = -(log_probability * positive).sum(dim=1) / count.clamp(min=1)
    return per_anchor.sum() / (count > 0).sum().clamp(min=1)


class InfoNCE(Objective):
    r"""Symmetric InfoNCE, weighted over pairs of modalities.

    For a pair (a, b) the loss is the mean of ``info_nce`` from a to b and from b to a. Each direction's anchors are the
    vectors that have a positive (a vector of the other modality in the same group), its candidates all vectors of the
    other modality: vectors of the same group are never each other's negatives, and a row that lacks one modality still
    serves with those it has. The total is the weighted mean over the pairs that have a positive in the batch.

    The logits are :math:`e^{t} \langle a_i, b_j \rangle` with a learnable :math:`t`, as in CLIP; before each use t is
    projected onto :math:`[0, \log(\text{max\_scale})]`, so that the scale can neither explode nor vanish.

    Args:
        pairs: ``"text-image"``-like name -> weight (> 0). None: every pair of modalities, each with weight 1.
        temperature: the initial temperature, in [1 / max_scale, 1]; the logit scale is its inverse.
        max_scale: the bound of the logit scale; CLIP's is 100.
    """

    def __init__(
        self, pairs: Mapping[str, float] | None = None, temperature: float = 0.07, max_scale: float = 100.0
    ) -> None:
        super().__init__()
        if not 1 <= max_scale < math.inf:
            raise UsageError(f"InfoNCE: max_scale {max_scale} must be at least 1, and finite.")
        if pairs is not None and not pairs:
            raise UsageError("InfoNCE: pairs is empty; leave it out to take all pairs.")
        if not 1 / max_scale <= temperature <= 1:
            raise UsageError(
                f"InfoNCE: temperature {temperature} lies outside [1 / max_scale, 1] = [{1 / max_scale}, 1]."
            )
        self.pairs = (
            None if pairs is None else {_parse_pair(name): _positive_weight(name, w) for name, w in pairs.items()}
        )
        self.max_log_scale = math.log(max_scale)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    @property
    def named_modalities(self) -> set[str]:
        return set(chain.from_iterable(self.pairs or ()))

    def forward(self, embeddings: Embeddings) -> Loss:
        with torch.no_grad():  # the projection after the optimizer's last step
            self.log_scale.clamp_(0.0, self.max_log_scale)
        scale = self.log_scale.exp()
        # zero, but attached to every vector: a batch without any pair still has gradients, all 0
        total = sum((v.sum() * 0.0 for v in embeddings.vectors.values()), start=scale * 0.0)
        total_weight = 0.0
        parts: dict[str, Tensor] = {"temperature": 1 / scale.detach()}
        for (a, b), weight in self._pairs_of(embeddings).items():
            positive = embeddings.groups_of(a)[:, None] == embeddings.groups_of(b)[None, :]
            if not positive.any():
                continue
            logits = scale.to(embeddings.vectors[a].dtype) * embeddings.vectors[a] @ embeddings.vectors[b].T
            loss = (info_nce(logits, positive) + info_nce(logits.T, positive.T)) / 2
            parts[f"{a}-{b}"] = loss.detach()
            total = total + weight * loss
            total_weight += weight
        return Loss(total / total_weight if total_weight else total, parts)

    def _pairs_of(self, embeddings: Embeddings) -> dict[tuple[str, str], float]:
        present = embeddings.vectors
        if self.pairs is None:
            return dict.fromkeys(combinations(present, 2), 1.0)
        return {(a, b): w for (a, b), w in self.pairs.items() if a in present and b in present}


def _parse_pair(name: str) -> tuple[str, str]:
    a, _, b = name.partition("-")
    if not (a.isidentifier() and b.isidentifier()) or a == b:
        raise UsageError(f"InfoNCE: {name!r} is no pair of two modalities; write one like 'text-image'.")
    return a, b


def _positive_weight(name: str, weight: float) -> float:
    if not (math.isfinite(weight) and weight > 0):
        raise UsageError(f"InfoNCE: the weight {weight} of pair {name!r} must be a positive number.")
    return float(weight)
