"""What is exported of a modality: a module from the processor's tensors to unit vectors, and what to try it with."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from multimodal.core.embedder import Embedder
from multimodal.core.encoder import Encoder, Inputs, Processor
from multimodal.core.errors import MultimodalError
from multimodal.core.lora import merge_adapters
from multimodal.core.registry import class_path

TOLERANCE = 1e-4  # of the components of unit vectors


class Tower(nn.Module):
    """One modality's encoder and head: the encoder's inputs -> ``(n, dim)`` unit vectors."""

    def __init__(self, embedder: Embedder, modality: str) -> None:
        super().__init__()
        encoder = embedder.encoder(modality)
        self.modality = modality
        self.encoder = merge_adapters(encoder) if modality in embedder.lora else encoder
        self.head = embedder.heads[modality]
        self.forward = self._with_names()
        self.eval()

    def _with_names(self) -> Callable[..., Tensor]:
        """``forward`` with the encoder's own signature, by which exporters tell the inputs apart."""

        def forward(**inputs: Tensor) -> Tensor:
            return nn.functional.normalize(self.head(self.encoder(**inputs)), dim=-1)

        forward.__signature__ = inspect.signature(self.encoder.forward)  # pyright: ignore[reportFunctionMemberAccess]
        return forward

    @property
    def what(self) -> str:
        """The tower in an error text."""
        return f"The {self.modality} encoder ({type(self.encoder).__name__})"


@dataclass(frozen=True)
class TrialBatches:
    """Two batches of a tower's inputs that differ in every size that may change, and what it makes of the second."""

    first: Inputs
    second: Inputs
    vectors: Tensor

    @classmethod
    def of(cls, tower: Tower) -> TrialBatches:
        """From the examples of the tower's processor.

        Raises:
            MultimodalError: it has none.
        """
        assert isinstance(tower.encoder, Encoder)
        processor = tower.encoder.processor
        items = [processor(value) for value in processor.examples()]
        if not items:
            raise MultimodalError(
                f"{tower.what} cannot be exported: its {type(processor).__name__} has no examples() to export it with."
            )
        first, second = processor.collate(items[:1] * 3), processor.collate(items * 2)
        with torch.no_grad():
            return cls(first, second, tower(**second))

    def sizes(self) -> dict[str, list[int | None]]:
        """The shape of each input; None where it may change."""
        return {
            name: [
                size if size == other else None for size, other in zip(t.shape, self.second[name].shape, strict=True)
            ]
            for name, t in self.first.items()
        }


def check_difference(tower: Tower, made: Tensor, expected: Tensor, to: str) -> float:
    """The largest difference of the vectors that an exported tower makes from the model's.

    Raises:
        MultimodalError: it is more than rounding.
    """
    difference = float((made - expected).abs().max()) if made.shape == expected.shape else float("inf")
    if not difference <= TOLERANCE:
        raise MultimodalError(
            f"{tower.what} makes other vectors once it is exported to {to}: they differ by {difference:.2g}."
        )
    return difference


def describe_inputs(trial: TrialBatches) -> dict[str, dict[str, Any]]:
    """Type and shape of each input as JSON values; null is a size that may change."""
    return {
        name: {"dtype": str(trial.first[name].dtype).removeprefix("torch."), "shape": shape}
        for name, shape in trial.sizes().items()
    }


def describe_processor(processor: Processor) -> dict[str, Any]:
    """How raw values become inputs: in words, in settings, and what was learned from the training data."""
    settings = {}
    for name, value in vars(processor).items():
        if not name.startswith("_"):
            try:
                json.dumps(value)
            except (TypeError, ValueError):
                continue
            settings[name] = value
    return {
        "class": class_path(type(processor)),
        "values": inspect.getdoc(type(processor)) or "",
        "inputs": inspect.getdoc(type(processor).collate) or "",
        "settings": settings,
        "state": processor.state(),
    }
