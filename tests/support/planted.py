"""Encoders in which one planted cause alone decides: the vector is (1, 0) where it is present, (0, 1) where it is not."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from multimodal.core.embedder import Embedder
from multimodal.core.encoder import Encoder, Inputs, Processor
from multimodal.core.registry import create

Cause = Callable[[Inputs], Tensor]  # inputs of n items -> (n,) bool

PRESENT = {"vector": [1.0, 0.0]}  # what matches a value with the cause


class Planted(Encoder):
    """Sees nothing but the cause."""

    cause: Cause

    def __init__(self) -> None:
        super().__init__()
        self.width = 2

    def forward(self, **inputs: Tensor) -> Tensor:
        seen = self.cause(inputs).float()
        return torch.stack([seen, 1 - seen], dim=1)


def planted(modality: str, processor: Processor, cause: Cause) -> Embedder:
    """An embedder of a modality with the cause, and of ``vector``, whose values are vectors of two components."""
    encoder = Planted()
    encoder.processor, encoder.cause = processor, cause
    encoders = {modality: encoder, "vector": create("vector", "precomputed", width=2, scale="none")}
    return Embedder(encoders, dim=2, heads=dict.fromkeys(encoders, "none"))
