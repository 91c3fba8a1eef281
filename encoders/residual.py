"""A layer that several encoders end with."""

from __future__ import annotations

from torch import Tensor, nn


class Residual(nn.Module):
    """``x + W2 gelu(W1 norm(x))`` with dropout before W2, then a norm; ``(n, width)`` -> ``(n, width)``."""

    def __init__(self, width: int, drop: float) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Dropout(drop), nn.Linear(width, width)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.mlp(x))
