"""The contract of an objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from multimodal.core.embeddings import Embeddings


@dataclass(frozen=True)
class Loss:
    """A scalar to minimise, and its named parts (detached scalars) for the log."""

    total: Tensor
    parts: dict[str, Tensor]


class Objective(nn.Module, ABC):
    """Embeddings -> ``Loss``. Parameters of an objective (a temperature) are trained with the model.

    The total is a function of the vectors alone, whoever computed them, and has a gradient with respect to each of
    them and to each parameter, if only of 0: a batch in which there is nothing to compare can still be trained on.
    """

    progress: float = 0.0
    """How much of the training is done, in [0, 1]; ``set_progress`` tells it."""

    @property
    def named_modalities(self) -> set[str]:
        """The modalities that its settings name, for whoever knows which there are."""
        return set()

    @property
    def named_targets(self) -> set[str]:
        """The targets that its settings name."""
        return set()

    def set_progress(self, progress: float) -> None:
        """Tell this objective, and those that it is made of, how much of the training is done."""
        for module in self.modules():
            if isinstance(module, Objective):
                module.progress = progress

    @abstractmethod
    def forward(self, embeddings: Embeddings) -> Loss: ...


def attached_zero(embeddings: Embeddings, parameters: Iterable[Tensor]) -> Tensor:
    """A scalar 0 whose gradient with respect to every vector and parameter is 0."""
    return sum((t.sum() * 0.0 for t in (*embeddings.vectors.values(), *parameters)), start=torch.zeros(()))
