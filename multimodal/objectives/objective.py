"""The contract of an objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from multimodal.core.embeddings import Embeddings


@dataclass(frozen=True)
class Loss:
    """A scalar to minimise, and its named parts (detached scalars) for the log."""

    total: Tensor
    parts: dict[str, Tensor]


class Objective(nn.Module, ABC):
    """Embeddings -> ``Loss``. Parameters of an objective (a temperature) are trained with the model."""

    @property
    def named_modalities(self) -> set[str]:
        """The modalities that its settings name, for whoever knows which there are."""
        return set()

    @abstractmethod
    def forward(self, embeddings: Embeddings) -> Loss: ...
