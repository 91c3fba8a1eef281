"""What the data module reads of the module that is trained on its batches."""

from __future__ import annotations

from typing import Protocol

from multimodal.core.embedder import Embedder


class TrainedModel(Protocol):
    """A Lightning module whose embedder is trained: ``EmbedderModule`` is one, and a module of your own may be another.

    Attributes:
        embedder: its processors make the items of the batches.
        seed: of the order of the samples and of their augmentation.
    """

    embedder: Embedder
    seed: int

    @property
    def frozen(self) -> frozenset[str]:
        """The modalities whose encoder is frozen throughout: what it makes of the rows is computed once."""
        ...

    @property
    def trained_pairs(self) -> set[frozenset[str]] | None:
        """The pairs of modalities that are compared in training; None: all."""
        ...
