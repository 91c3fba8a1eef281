"""Principal components of pixels: the classic embedding of pictures, without training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from multimodal.core.encoder import Encoder
from multimodal.core.errors import Unreadable, UsageError
from multimodal.core.registry import register
from multimodal_encoders.image.image_processor import ImageProcessor

MOST_PICTURES = 50_000  # that are fitted
SMALLEST_VARIANCE = 1e-10  # of a component, where pixels are in [0, 1]
BLOCK = 1_024  # pictures in memory at a time


@register("image", "pca")
class PCA(Encoder):
    """Principal components of small pictures (eigenfaces, Turk and Pentland 1991), fitted to the training split.

    Nothing in it is trained: only the projection head learns. It is a baseline for other encoders, and good for aligned
    drawings of one size.

    Args:
        size: pictures are resized to ``size`` x ``size`` pixels.
        channels: 1 for grey, 3 for RGB.
        width: number of components; those beyond what the pictures have are 0.
        background: what transparent pictures lie on and others are made square with: a colour's name, or ``#rrggbb``.

    Examples:
        >>> encoder = PCA(size=4, width=2)
        >>> encoder.fit([np.full((4, 4), shade, np.uint8) for shade in (0, 100, 200)])
        >>> encoder(**encoder.processor.collate([encoder.processor(np.full((4, 4), 100, np.uint8))])).shape
        torch.Size([1, 2])
    """

    mean: Tensor
    components: Tensor

    def __init__(self, size: int = 32, channels: Literal[1, 3] = 1, width: int = 64, background: str = "white") -> None:
        super().__init__()
        if channels not in (1, 3) or width < 1:
            raise UsageError(f"PCA: channels must be 1 or 3 and width at least 1, got {channels} and {width}.")
        self.processor = ImageProcessor(size, channels, background=background, encoder="PCA")
        self.width = width
        pixels = channels * size**2
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("components", torch.zeros(pixels, width))

    def fit(self, values: Iterable[Any]) -> None:
        """Fit the mean and the components to the first 50,000 pictures that can be read.

        They are scaled so that the features of these pictures have a mean square of 1.
        """
        pictures = islice(self._pixels(values), MOST_PICTURES)
        count, total = 0, np.zeros(len(self.mean))
        products = np.zeros((len(total), len(total)))
        while block := list(islice(pictures, BLOCK)):
            x = np.stack(block)
            count += len(x)
            total += x.sum(axis=0)
            products += x.T @ x
        if not count:
            return
        mean = total / count
        variances, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
        kept = min(self.width, len(mean), count)
        variances, vectors = variances[::-1][:kept], vectors[:, ::-1][:, :kept]
        vectors = np.where(variances > SMALLEST_VARIANCE, vectors, 0)  # less is rounding
        scale = np.sqrt(variances[variances > SMALLEST_VARIANCE].sum() / self.width)
        with torch.no_grad():
            self.mean.copy_(torch.from_numpy(mean))
            self.components.zero_()
            if scale > 0:
                self.components[:, :kept] = torch.from_numpy(vectors / scale)

    def _pixels(self, values: Iterable[Any]) -> Iterator[np.ndarray]:
        for value in values:
            with suppress(Unreadable):  # the reader rejects this row
                yield self.processor(value).numpy().astype(np.float64).transpose(2, 0, 1).reshape(-1) / 255

    def forward(self, pixels: Tensor) -> Tensor:
        """``pixels`` ``(n, channels, size, size)`` uint8 -> ``(n, width)``."""
        return (pixels.flatten(1).to(self.mean.dtype) / 255 - self.mean) @ self.components
