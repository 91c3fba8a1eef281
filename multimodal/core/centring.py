"""Closing of the modality gap: each modality's mean vector, subtracted from its vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Centring(nn.Module):
    """Subtracts a mean from unit vectors and scales them to unit length again.

    Args:
        mean: ``(dim,)``, the mean of a modality's vectors, such as that of ``evaluation.geometry.modality_means``.

    Examples:
        >>> Centring(torch.tensor([0.6, 0.0]))(torch.tensor([[0.6, 0.8]])).tolist()
        [[0.0, 1.0]]
    """

    mean: Tensor

    def __init__(self, mean: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32).detach().clone())

    def forward(self, vectors: Tensor) -> Tensor:
        """Centre unit vectors ``(n, dim)``."""
        return functional.normalize(vectors - self.mean, dim=-1)
