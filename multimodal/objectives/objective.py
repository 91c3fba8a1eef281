"""The contract of an objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.core.recording import Recorded
from multimodal.objectives.pairs import Pairs


@dataclass(frozen=True)
class Loss:
    """A scalar to minimise, and its named parts (detached scalars) for the log."""

    total: Tensor
    parts: dict[str, Tensor]


class Objective(Recorded, nn.Module, ABC):
    """Embeddings -> ``Loss``. Parameters of an objective (a temperature) are trained with the model.

    The total is a function of the vectors alone, whoever computed them, and has a gradient with respect to each of
    them and to each parameter, if only of 0: a batch in which there is nothing to compare can still be trained on.
    Where it compares pairs of modalities, its attribute ``pairs``, a ``Pairs``, tells which.
    """

    progress: float = 0.0
    """How much of the training is done, in [0, 1]; ``set_progress`` tells it."""

    @property
    def _pairs(self) -> Pairs | None:
        pairs = getattr(self, "pairs", None)
        return pairs if isinstance(pairs, Pairs) else None

    @property
    def named_modalities(self) -> set[str]:
        """The modalities that its settings name, for whoever knows which there are."""
        return set() if self._pairs is None else self._pairs.modalities

    @property
    def named_targets(self) -> set[str]:
        """The targets that its settings name."""
        return set()

    def compared(self, modalities: Sequence[str]) -> set[frozenset[str]] | None:
        """The pairs, among some modalities, whose vectors it compares with each other; None: it does not tell."""
        return None if self._pairs is None else {frozenset(pair) for pair in self._pairs.of(modalities)}

    def set_progress(self, progress: float) -> None:
        """Tell this objective, and those that it is made of, how much of the training is done."""
        for module in self.modules():
            if isinstance(module, Objective):
                module.progress = progress

    @abstractmethod
    def forward(self, embeddings: Embeddings) -> Loss: ...

    def __call__(self, embeddings: Embeddings) -> Loss:
        """``forward``, whose answer is checked: people write objectives of their own.

        Raises:
            UsageError: it is no ``Loss``.
        """
        loss = super().__call__(embeddings)
        if not isinstance(loss, Loss):
            raise UsageError(f"{type(self).__name__} returned a {type(loss).__name__}; return Loss(total, parts).")
        return loss


def zero_with_gradients(embeddings: Embeddings, parameters: Iterable[Tensor]) -> Tensor:
    """A scalar 0 whose gradient with respect to every vector and parameter is 0."""
    return sum((t.sum() * 0.0 for t in (*embeddings.vectors.values(), *parameters)), start=torch.zeros(()))
