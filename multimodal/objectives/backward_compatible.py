"""Backward-compatible training: a new model whose vectors can be compared with those that an old one has stored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.objectives.distillation import teacher_vectors
from multimodal.objectives.infonce import info_nce
from multimodal.objectives.objective import Loss, Objective, zero_with_gradients
from multimodal.objectives.pairs import Pair, Pairs
from multimodal.objectives.tiles import Block


class BackwardCompatible(Objective):
    r"""InfoNCE between the new model's vectors and an old model's vectors of the same rows, averaged over pairs of modalities.

    For a pair (a, b) the loss is the mean of ``info_nce`` between the new vectors of a and the old vectors of b, and between
    the new vectors of b and the old ones of a, so that new queries find old vectors. The old vectors are targets of the rows,
    computed beforehand and constant: they take the place of the old classifier of Shen et al. Use it in a ``Sum``, next to the
    objective of the new model: :math:`L = L_{\mathrm{new}} + \lambda L_{\mathrm{old}}`.

    Args:
        old: modality -> the target ``(n, dim)`` that holds the old model's vectors of it, as wide as the new ones.
        pairs: weight (> 0) of each pair, by a name like ``"text-image"``; ``*`` matches any modality, see ``Pairs``.
            None: every pair, with weight 1. Pairs with a modality that has no old vectors are left out.
        temperature: above 0; constant.

    Source: Shen, Xiong, Xia and Soatto 2020, "Towards Backward-Compatible Representation Learning", equation 4, with a
    contrastive loss.

    Examples:
        >>> import torch
        >>> from multimodal.core.embeddings import Embeddings
        >>> vectors, rows = torch.eye(2), torch.arange(2)
        >>> batch = Embeddings(
        ...     {"image": vectors, "text": vectors}, {"image": rows, "text": rows}, rows, targets={"old": vectors}
        ... )
        >>> objective = BackwardCompatible({"image": "old", "text": "old"}, temperature=1.0)
        >>> round(objective(batch).total.item(), 4)  # log(1 + exp(-1))
        0.3133
    """

    def __init__(
        self, old: Mapping[str, str], pairs: Mapping[str, float] | None = None, temperature: float = 0.07
    ) -> None:
        super().__init__()
        self.pairs = Pairs(pairs, "BackwardCompatible")
        if len(old) < 2:
            raise UsageError(
                "BackwardCompatible: old needs a target for at least two modalities, like {image: old_image, text: old_text}."
            )
        if not 0 < temperature < math.inf:
            raise UsageError(f"BackwardCompatible: temperature {temperature} must be a positive number.")
        self.old, self.temperature = dict(old), temperature

    @property
    def named_modalities(self) -> set[str]:
        return self.pairs.modalities | set(self.old)

    @property
    def named_targets(self) -> set[str]:
        return set(self.old.values())

    def compared_pairs(self, modalities: Sequence[str]) -> set[frozenset[str]]:
        return {frozenset(pair) for pair in self.pairs.of(m for m in modalities if m in self.old)}

    def forward(self, embeddings: Embeddings) -> Loss:
        def of_pair(pair: Pair) -> Tensor | None:
            (of_a, of_b), (rows_a, rows_b) = pair.names, pair.rows
            old_a, old_b = self._old_of(embeddings, of_a, rows_a), self._old_of(embeddings, of_b, rows_b)
            if old_a is None or old_b is None or not len(old_a.vectors) or not len(old_b.vectors):
                return None
            return (self._loss(pair.a, old_b) + self._loss(pair.b, old_a)) / 2

        return Loss(*self.pairs.mean(embeddings, zero_with_gradients(embeddings, ()), of_pair))

    def _loss(self, new: Block, old: Block) -> Tensor:
        return info_nce(Block(new.vectors / self.temperature, new.groups), old)

    def _old_of(self, embeddings: Embeddings, modality: str, rows: Tensor) -> Block | None:
        """Return the old vectors of a modality's rows, of unit length, without rows that have none."""
        vectors = teacher_vectors(embeddings, rows, self.old.get(modality))
        if vectors is None:
            return None
        width = embeddings.vectors[modality].shape[1]
        if vectors.shape[1:] != (width,):
            raise UsageError(
                f"BackwardCompatible: the old vectors of {modality} ({self.old[modality]}) have the shape"
                f" {tuple(vectors.shape[1:])}, but the new ones are {width} wide; set model.dim to the old width."
            )
        known = ~vectors.isnan().any(1)
        with torch.no_grad():
            unit = functional.normalize(vectors[known], dim=1)
        return Block(unit, embeddings.groups[rows][known])
