"""A processor of vectors that are given as they are, and a small encoder of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from multimodal.core.encoder import Encoder, Processor


class VectorProcessor(Processor):
    def __call__(self, value: Any) -> Tensor:
        return value

    def collate(self, items: Any) -> dict[str, Tensor]:
        return {"x": torch.stack(list(items))}


class TwoLayers(Encoder):
    """``x`` ``(n, 3)`` -> ``(n, 4)``, through the modules ``stem`` and ``top``."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.processor = 4, VectorProcessor()
        self.stem, self.top = nn.Linear(3, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.stem(x).tanh())
