"""Latent semantic analysis: the classic embedding of texts, without training."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multimodal.core.encoder import Encoder
from multimodal.core.errors import Unreadable, UsageError
from multimodal.core.registry import register
from multimodal_encoders.singular_directions import singular_directions
from multimodal_encoders.text.bag_of_words import BagProcessor

MOST_TEXTS = 200_000  # to which the directions are fitted


@register("text", "svd")
class SVD(Encoder):
    """Truncated singular value decomposition of weighted terms (latent semantic analysis, Deerwester et al. 1990).

    Terms are words and letter groups, as of ``bag``. The vocabulary and the directions are fitted to the training split;
    nothing in it is trained: only the projection head learns. It is a baseline for other encoders.

    Args:
        vocab_size: the largest number of terms, those in the most texts.
        width: number of directions; those beyond what the texts have are 0.
        shortest: of the letter groups, in characters.
        longest: of the letter groups; 0: words only.

    Examples:
        >>> encoder = SVD(vocab_size=100, width=2)
        >>> encoder.fit(["a red cup", "a red mug", "a blue cup"])
        >>> encoder(**encoder.processor.collate([encoder.processor("red cup")])).shape
        torch.Size([1, 2])
    """

    def __init__(self, vocab_size: int = 20_000, width: int = 128, shortest: int = 2, longest: int = 5) -> None:
        super().__init__()
        if vocab_size < 1 or width < 1 or shortest < 1:
            raise UsageError(
                f"SVD: vocab_size, width and shortest must be at least 1, got {vocab_size}, {width} and {shortest}."
            )
        self.width = width
        self.processor = BagProcessor(vocab_size, shortest, longest, word_drop=0.0)
        self.table = nn.EmbeddingBag(vocab_size, width, mode="sum")
        self.table.weight.requires_grad_(False).zero_()

    def fit(self, values: Iterable[Any]) -> None:
        """Fit the vocabulary to all texts, and the directions to the first 200,000.

        They are scaled so that the features of these texts have a mean square of 1.
        """
        from scipy.sparse import csr_array

        texts = list(values)
        super().fit(texts)
        items = []
        for text in texts[:MOST_TEXTS]:
            with suppress(Unreadable):  # the reader rejects this row
                items.append(self.processor(text))
        if not items:
            return
        inputs = {name: tensor.numpy() for name, tensor in self.processor.collate(items).items()}
        starts = np.concatenate([[0], inputs["sizes"].cumsum()])
        terms = len(self.table.weight)
        counts = csr_array((inputs["weights"], inputs["terms"], starts), shape=(len(items), terms))
        with torch.no_grad():
            self.table.weight.copy_(torch.from_numpy(singular_directions(counts, self.width)))

    def forward(self, terms: Tensor, weights: Tensor, sizes: Tensor) -> Tensor:
        """``terms`` and ``weights`` ``(t,)`` of n texts, ``sizes`` ``(n,)`` their numbers of terms -> ``(n, width)``."""
        weights = weights.to(self.table.weight.dtype)
        return self.table(terms, sizes.cumsum(0) - sizes, per_sample_weights=weights)
