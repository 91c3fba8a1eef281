"""Distillation: learning the similarities of a frozen teacher."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.objectives.objective import Loss, Objective, zero_with_gradients
from multimodal.objectives.pairs import Pair, Pairs


class Distillation(Objective):
    """The contrastive relational distillation of CLIP-KD (Yang et al. 2024), averaged over pairs of modalities.

    For a pair (a, b) the loss is the mean of ``kl_divergence`` from a to b and from b to a, over the rows that have the
    teacher's vectors too. Those are targets of the rows, computed beforehand; their norm and width may differ from the
    model's. Both similarities are cosines divided by one fixed temperature. All scores of a pair are kept: memory is
    O(n m).

    Args:
        teacher: modality -> the target ``(n, d_t)`` that holds the teacher's vectors of it.
        pairs: weight (> 0) of each pair, by a name like ``"text-image"``; ``*`` matches any modality, see ``Pairs``.
            None: every pair, with weight 1. Pairs with a modality that has no teacher are left out.
        temperature: above 0; the teacher's own temperature works best.

    Examples:
        >>> import torch
        >>> from multimodal.core.embeddings import Embeddings
        >>> vectors, rows = torch.eye(2), torch.arange(2)
        >>> batch = Embeddings(
        ...     {"image": vectors, "text": vectors}, {"image": rows, "text": rows}, rows, targets={"teacher": vectors}
        ... )
        >>> Distillation({"image": "teacher", "text": "teacher"})(batch).total.item()  # the student agrees
        0.0
    """

    def __init__(
        self, teacher: Mapping[str, str], pairs: Mapping[str, float] | None = None, temperature: float = 0.07
    ) -> None:
        super().__init__()
        self.pairs = Pairs(pairs, "Distillation")
        if len(teacher) < 2:
            raise UsageError(
                "Distillation: teacher needs a target for at least two modalities, like {image: image_vector}."
            )
        if not 0 < temperature < math.inf:
            raise UsageError(f"Distillation: temperature {temperature} must be a positive number.")
        self.teacher, self.temperature = dict(teacher), temperature

    @property
    def named_modalities(self) -> set[str]:
        return self.pairs.modalities | set(self.teacher)

    @property
    def named_targets(self) -> set[str]:
        return set(self.teacher.values())

    def compared_pairs(self, modalities: Sequence[str]) -> set[frozenset[str]]:
        return {frozenset(pair) for pair in self.pairs.of(m for m in modalities if m in self.teacher)}

    def forward(self, embeddings: Embeddings) -> Loss:
        def of_pair(pair: Pair) -> Tensor | None:
            taught = [
                teacher_vectors(embeddings, rows, self.teacher.get(modality))
                for modality, rows in zip(pair.names, pair.rows, strict=True)
            ]
            if any(vectors is None for vectors in taught):
                return None
            (x, t_x), (y, t_y) = (
                (block.vectors[~t.isnan().any(1)], t[~t.isnan().any(1)])
                for block, t in zip((pair.a, pair.b), taught, strict=True)
                if t is not None
            )
            if not len(x) or not len(y):
                return None
            student = x @ y.T / self.temperature
            teacher = functional.normalize(t_x, dim=1) @ functional.normalize(t_y, dim=1).T / self.temperature
            return (kl_divergence(student, teacher) + kl_divergence(student.T, teacher.T)) / 2

        return Loss(*self.pairs.mean(embeddings, zero_with_gradients(embeddings, ()), of_pair))


def teacher_vectors(embeddings: Embeddings, rows: Tensor, target: str | None) -> Tensor | None:
    """Return a frozen model's vectors of some rows, ``(n, d_t)``, NaN where a row has none.

    Args:
        embeddings: the embeddings of the batch.
        rows: ``(n,)`` rows of the batch.
        target: the target that holds the vectors. None: the modality has none.

    Returns:
        The vectors, constant, in the dtype of the batch. None: the batch has no such target.
    """
    if target is None or target not in embeddings.targets:
        return None
    dtype = next(iter(embeddings.vectors.values())).dtype
    return embeddings.targets[target][rows].detach().to(dtype)


def kl_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Mean over anchors of the Kullback-Leibler divergence of the student's softmax from the teacher's.

    .. math:: \frac{1}{n} \sum_i \sum_j p_{ij} \log \frac{p_{ij}}{q_{ij}}, \qquad
              p_i = \mathrm{softmax}(\text{teacher}_i), \quad q_i = \mathrm{softmax}(\text{student}_i)

    Args:
        student: ``(n, m)`` logits.
        teacher: ``(n, m)`` logits.
    """
    with torch.no_grad():
        target = teacher.log_softmax(dim=1)
    return functional.kl_div(student.log_softmax(dim=1), target, log_target=True, reduction="batchmean")
