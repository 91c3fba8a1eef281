"""Spectra for multimodal: heights at equally spaced places, as a string of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import multimodal as mm


class SpectrumProcessor(mm.Processor):
    """``"0.1 0.7 ..."`` -> heights, divided by the highest of the training spectra."""

    def __init__(self, places: int) -> None:
        self.places, self.highest = places, 0.0

    def fit(self, values: Iterable[Any]) -> None:
        self.highest = max(float(height) for value in values for height in value.split())

    def state(self) -> dict[str, Any]:
        return {"highest": self.highest} if self.highest else {}

    def load_state(self, state: dict[str, Any]) -> None:
        self.highest = state.get("highest", 0.0)

    def __call__(self, value: Any) -> Tensor:
        heights = [float(height) for height in value.split()]
        if len(heights) != self.places:
            raise mm.Unreadable("wrong length", f"the spectrum has {len(heights)} heights, not {self.places}.")
        return torch.tensor(heights) / self.highest

    def collate(self, items: Sequence[Tensor]) -> mm.Inputs:
        """``heights``: ``(n, places)`` float32."""
        return {"heights": torch.stack(list(items))}

    def examples(self) -> list[Any]:
        return [" ".join([height] * self.places) for height in ("0.5", "1.0")]


@mm.register("spectrum", "mlp")
class SpectrumMLP(mm.Encoder):
    """Two layers over the heights.

    Args:
        places: of a spectrum.
        width: of the hidden layer and of the features.
    """

    def __init__(self, places: int = 16, width: int = 32) -> None:
        super().__init__()
        self.width, self.processor = width, SpectrumProcessor(places)
        self.net = nn.Sequential(nn.Linear(places, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, heights: Tensor) -> Tensor:
        return self.net(heights)
