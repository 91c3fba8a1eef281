"""The pairwise sigmoid loss of SigLIP."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.objectives.objective import Loss, Objective, zero_with_gradients
from multimodal.objectives.pairs import GivenNegatives, Pair, Pairs, sum_matched_scores
from multimodal.objectives.temperature import PairParameter, Temperature
from multimodal.objectives.tiles import Block, softplus_sum


class Sigmoid(Objective):
    r"""Pairwise sigmoid loss (SigLIP): classifies every two vectors as a match or not. Averaged over pairs of modalities.

    The logits are :math:`e^{t} \langle a_i, b_j \rangle + \beta` with a learned :math:`t`, see ``Temperature``, and a
    learned bias :math:`\beta`. It begins at -10 as in SigLIP (Zhai et al. 2023), since nearly all pairs
    do not match. Hard negatives from the data are compared with their own row alone. The total is the weighted mean of
    ``sigmoid_loss`` over the pairs that have a positive in the batch.

    Args:
        pairs: weight (> 0) of each pair, by a name like ``"text-image"``; ``*`` matches any modality, see ``Pairs``.
            None: every pair, with weight 1.
        temperature: the initial temperature, in [1 / max_scale, 1]; SigLIP uses 0.1. A mapping
            gives each pair its own temperature.
        max_scale: upper bound of the logit scale, at least 1.
        bias: initial bias. A mapping gives each pair its own.

    Examples:
        >>> import torch
        >>> from multimodal.core.embeddings import Embeddings
        >>> vectors, rows = torch.eye(2), torch.arange(2)  # two rows whose image and text agree
        >>> batch = Embeddings({"image": vectors, "text": vectors}, {"image": rows, "text": rows}, groups=rows)
        >>> round(Sigmoid(temperature=1.0, bias=0.0)(batch).total.item(), 4)  # log(1 + exp(-1)) + log(2)
        1.0064
    """

    def __init__(
        self,
        pairs: Mapping[str, float] | None = None,
        temperature: float | Mapping[str, float] = 0.1,
        max_scale: float = 100.0,
        bias: float | Mapping[str, float] = -10.0,
    ) -> None:
        super().__init__()
        for value in bias.values() if isinstance(bias, Mapping) else [bias]:
            if not math.isfinite(value):
                raise UsageError(f"Sigmoid: bias {value} must be finite.")
        self.pairs = Pairs(pairs, "Sigmoid")
        self.temperature = Temperature(temperature, max_scale, self.pairs, "Sigmoid")
        self.bias = PairParameter(bias, self.pairs, "Sigmoid", "bias")

    def forward(self, embeddings: Embeddings) -> Loss:
        self.temperature.project()
        zero = zero_with_gradients(embeddings, self.parameters())
        total, parts = self.pairs.mean(embeddings, zero, self._of_pair)
        biases = {f"bias/{name}".rstrip("/"): value for name, value in self.bias.named().items()}
        return Loss(total, self.temperature.parts() | biases | parts)

    def _of_pair(self, pair: Pair) -> Tensor:
        scaled, bias = self.temperature.scaled(pair), self.bias.of(pair.names)
        return sigmoid_loss(scaled.a, scaled.b, bias, scaled.negatives_of_a, scaled.negatives_of_b)


def sigmoid_loss(
    a: Block,
    b: Block,
    bias: Tensor,
    negatives_of_a: GivenNegatives | None = None,
    negatives_of_b: GivenNegatives | None = None,
) -> Tensor:
    r"""Sigmoid loss (Zhai et al. 2023, section 3.2), with :math:`s_{ij} = \langle a_i, b_j \rangle + \beta`.

    .. math:: L = \frac{-2}{n + m} \sum_{i} \sum_{j} \log \sigma(z_{ij} s_{ij})
                = \frac{2}{n + m} \Big( \sum_{ij} \log(1 + e^{s_{ij}}) - \sum_{z_{ij} = 1} s_{ij} \Big)

    with :math:`z_{ij} = 1` for vectors of one group and -1 for others. The second form, by
    :math:`-\log \sigma(s) = \log(1 + e^{s}) - s`, needs the positives only in a sum that is linear in the vectors. A
    hard negative from the data adds the term of one more :math:`z_{ij} = -1`.

    Args:
        a: ``(n, d)`` vectors, already divided by the temperature, and their groups.
        b: ``(m, d)`` vectors and their groups.
        bias: the scalar :math:`\beta`.
        negatives_of_a, negatives_of_b: hard negatives from the data; those of b are divided by the temperature too.
    """
    bias = bias.to(a.vectors.dtype)
    matches = sum_matched_scores(a, b)
    positive_sum = matches.sums.sum() + bias * (matches.counts_a * matches.counts_b).sum()
    total = softplus_sum(a.vectors, b.vectors, bias) - positive_sum
    for block, given in ((a, negatives_of_a), (b, negatives_of_b)):
        if given is not None:
            total = total + functional.softplus(given.scores(block.vectors) + bias).sum()
    return total * 2 / (len(a.vectors) + len(b.vectors))
