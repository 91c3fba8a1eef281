"""Spectra for multimodal: heights at equally spaced frequencies, as a string of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import multimodal as mm


class SpectrumProcessor(mm.Processor):
    """Reads strings like ``"0.1 0.7 ..."`` as heights, divided by the largest height in the training data."""

    def __init__(self, points: int) -> None:
        self.points, self.highest = points, 0.0

    def fit(self, values: Iterable[Any]) -> None:
        self.highest = max(float(height) for value in values for height in value.split())

    def state(self) -> dict[str, Any]:
        return {"highest": self.highest} if self.highest else {}

    def load_state(self, state: dict[str, Any]) -> None:
        self.highest = state.get("highest", 0.0)

    def __call__(self, value: Any) -> Tensor:
        heights = [float(height) for height in value.split()]
        if len(heights) != self.points:
            raise mm.Unreadable("wrong length", f"the spectrum has {len(heights)} heights, not {self.points}.")
        return torch.tensor(heights) / self.highest

    def collate(self, items: Sequence[Tensor]) -> mm.Inputs:
        """Stack n items to ``heights`` ``(n, points)`` float32."""
        return {"heights": torch.stack(list(items))}

    def examples(self) -> list[Any]:
        return [" ".join([height] * self.points) for height in ("0.5", "1.0")]


@mm.register("spectrum", "mlp")
class SpectrumMLP(mm.Encoder):
    """An MLP with one hidden layer over the heights.

    Args:
        points: the number of heights of a spectrum.
        width: the width of the hidden layer and of the features.
    """

    def __init__(self, points: int = 16, width: int = 32) -> None:
        super().__init__()
        self.width, self.processor = width, SpectrumProcessor(points)
        self.net = nn.Sequential(nn.Linear(points, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, heights: Tensor) -> Tensor:
        return self.net(heights)
