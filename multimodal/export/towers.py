"""The exported module of a modality, from the processor's tensors to unit vectors, and batches to try it with."""

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

TOLERANCE = 1e-4  # difference of a component of unit vectors


class Tower(nn.Module):
    """One modality's encoder and head: the encoder's inputs -> ``(n, dim)`` unit vectors.

    Args:
        embedder: the model.
        modality: one of its modalities.

    Raises:
        UsageError: the model has no such modality.

    Examples:
        >>> from multimodal_encoders.text.transformer import TextTransformer
        >>> encoder = TextTransformer(width=16, layers=1, heads=2)
        >>> encoder.processor.fit(["a red cup"])
        >>> tower = Tower(Embedder({"text": encoder}, dim=8), "text")
        >>> tower(**encoder.processor.collate([encoder.processor("a cup")])).shape
        torch.Size([1, 8])
    """

    def __init__(self, embedder: Embedder, modality: str) -> None:
        super().__init__()
        encoder = embedder.encoder(modality)
        self.modality = modality
        self.encoder = merge_adapters(encoder) if modality in embedder.lora else encoder
        self.head = embedder.heads[modality]
        self.centring = embedder.centring[modality] if modality in embedder.centring else nn.Identity()
        self.forward = self._named_forward()
        self.eval()

    def _named_forward(self) -> Callable[..., Tensor]:
        """Return ``forward`` with the encoder's signature, from which exporters take the names of the inputs."""

        def forward(**inputs: Tensor) -> Tensor:
            return self.centring(nn.functional.normalize(self.head(self.encoder(**inputs)), dim=-1))

        forward.__signature__ = self.encoder.forward_signature()  # pyright: ignore[reportFunctionMemberAccess]
        return forward

    @property
    def description(self) -> str:
        """Noun phrase for error texts, with the modality and the encoder's class."""
        return f"The {self.modality} encoder ({type(self.encoder).__name__})"


@dataclass(frozen=True)
class TrialBatches:
    """Two batches of a tower's inputs that differ in every dynamic size, with the tower's vectors of the second.

    Attributes:
        first: input name -> tensor; the batch to export with.
        second: input name -> tensor; the batch to check with.
        vectors: ``(n, dim)`` unit vectors of the second batch.

    Examples:
        >>> one, two = {"tokens": torch.zeros(3, 5)}, {"tokens": torch.zeros(2, 5)}
        >>> TrialBatches(one, two, vectors=torch.zeros(2, 8)).sizes()
        {'tokens': [None, 5]}
    """

    first: Inputs
    second: Inputs
    vectors: Tensor

    @classmethod
    def of(cls, tower: Tower) -> TrialBatches:
        """Make the batches from the examples of the tower's processor.

        Raises:
            MultimodalError: the processor has no examples.
        """
        assert isinstance(tower.encoder, Encoder)
        processor = tower.encoder.processor
        items = [processor(value) for value in processor.examples()]
        if not items:
            raise MultimodalError(
                f"{tower.description} cannot be exported: its {type(processor).__name__} has no examples(), with which"
                " an encoder is traced; add the method (docs/extend.md)."
            )
        first, second = processor.collate(items[:1] * 3), processor.collate(items * 2)
        with torch.no_grad():
            return cls(first, second, tower(**second))

    def sizes(self) -> dict[str, list[int | None]]:
        """Return the shape of each input, with None for sizes that may change."""
        return {
            name: [
                size if size == other else None for size, other in zip(t.shape, self.second[name].shape, strict=True)
            ]
            for name, t in self.first.items()
        }


def check_difference(tower: Tower, actual: Tensor, expected: Tensor, to: str) -> float:
    """Check that an exported tower returns the model's vectors.

    Args:
        tower: the tower, named in the error.
        actual: ``(n, dim)`` vectors of the exported tower.
        expected: ``(n, dim)`` vectors of the model for the same values.
        to: the format, named in the error.

    Returns:
        The largest difference of a component.

    Raises:
        MultimodalError: the shapes differ, or a difference is larger than ``TOLERANCE``.
    """
    difference = float((actual - expected).abs().max()) if actual.shape == expected.shape else float("inf")
    if not difference <= TOLERANCE:
        raise MultimodalError(
            f"{tower.description} gives other vectors after the export to {to} (they differ by up to {difference:.2g});"
            " choose another format."
        )
    return difference


def describe_inputs(trial: TrialBatches) -> dict[str, dict[str, Any]]:
    """Return the type and shape of each input as JSON values; null is a size that may change."""
    return {
        name: {"dtype": str(trial.first[name].dtype).removeprefix("torch."), "shape": shape}
        for name, shape in trial.sizes().items()
    }


def describe_processor(processor: Processor) -> dict[str, Any]:
    """Describe how raw values become inputs: in words, as settings, and with the state fitted on training data."""
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
