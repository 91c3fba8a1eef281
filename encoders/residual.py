"""A layer that several encoders end with."""

from __future__ import annotations

from torch import Tensor, nn


INPUT_LENGTH = 4.0  # of rows of counts: Adam's steps are of one size, so that it sets how fast their weights are learned


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
