"""Interface between the data module and the module that is trained on its batches."""

from __future__ import annotations

from typing import Protocol

from multimodal.core.embedder import Embedder


class TrainedModel(Protocol):
    """A Lightning module whose embedder is trained, such as ``EmbedderModule`` or your own module.

    Attributes:
        embedder: the embedder whose processors convert values to the items of batches.
        seed: seed of the order of samples and of their augmentation.
    """

    embedder: Embedder
    seed: int

    @property
    def frozen(self) -> frozenset[str]:
        """The modalities whose encoder is frozen for the entire training: its features are computed once per row."""
        ...

    @property
    def trained_pairs(self) -> set[frozenset[str]] | None:
        """The pairs of modalities that the objective compares; None: all."""
        ...

    @property
    def compared_pairs(self) -> set[frozenset[str]] | None:
        """The pairs of modalities that the objective compares; empty: it compares none; None: it is not known."""
        ...
