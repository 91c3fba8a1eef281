"""A small convolutional network for drawings, which keeps where things are."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from multimodal.core.encoder import Encoder
from multimodal.core.errors import UsageError
from multimodal.core.layers import check_layers
from multimodal.core.registry import register
from multimodal_encoders.image.image_processor import ImageProcessor, scale_pixels


@register("image", "small_cnn")
class SmallCNN(Encoder):
    """A small convolutional network for drawings and symbols, whose features keep where in the picture things are.

    Each stage halves the edge: a 3x3 convolution of stride 2, batch normalisation and ReLU, then ``depth - 1`` further ones
    of stride 1. The positions of the last stage are not averaged, as in ``cnn``, but all become features: a bar above a
    letter is another thing than one below. Use ``cnn`` where what is shown may be anywhere, as in photos.

    Args:
        size: pictures are resized to ``size`` x ``size`` pixels.
        channels: 1 for grey, 3 for RGB.
        widths: channels of each stage; there are ``widths[-1] * ceil(size / 2 ** len(widths)) ** 2`` features.
        depth: convolutions in each stage.
        jitter: in training, random shift and scale up to this fraction of the picture's edge.
        stroke: in training, lines become up to this many pixels wider or narrower on each side (on a light background), so
            that drawings with other pens are found.
        drop: dropout of the features.
        background: what transparent pictures lie on and others are made square with: a colour's name, or ``#rrggbb``.
        augment: in training, transforms of ``torchvision.transforms.v2`` in their order, by their names and settings.

    Examples:
        >>> encoder = SmallCNN(size=16, widths=[8, 16])
        >>> encoder(torch.zeros(2, 1, 16, 16, dtype=torch.uint8)).shape
        torch.Size([2, 256])
    """

    def __init__(
        self,
        size: int = 48,
        channels: Literal[1, 3] = 1,
        widths: list[int] = [32, 64, 128, 256],  # noqa: B006 (read only)
        depth: int = 1,
        jitter: float = 0.0,
        stroke: float = 0.0,
        drop: float = 0.0,
        background: str = "white",
        augment: list[dict[str, dict[str, Any]]] | None = None,
    ) -> None:
        super().__init__()
        if size < 1 or channels not in (1, 3):
            raise UsageError(f"SmallCNN: size must be at least 1 and channels 1 or 3, got {size} and {channels}.")
        if not widths or min(widths) < 1 or depth < 1:
            raise UsageError(f"SmallCNN: widths and depth must be at least 1, got {widths} and {depth}.")
        check_layers("SmallCNN", "depth", depth)
        if not (0 <= stroke < math.inf and 0 <= jitter < math.inf):
            raise UsageError(f"SmallCNN: stroke and jitter must be at least 0, got {stroke} and {jitter}.")
        self.processor = ImageProcessor(size, channels, jitter, background, augment or (), stroke, "SmallCNN")
        layers: list[nn.Module] = []
        previous = int(channels)
        for width in widths:
            for number in range(depth):
                stride = 1 if number else 2
                layers += [
                    nn.Conv2d(previous, width, 3, stride, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                ]
                previous = width
        self.net = nn.Sequential(*layers)
        self.drop = nn.Dropout(drop)
        self.width = previous * math.ceil(size / 2 ** len(widths)) ** 2
        self.to(memory_format=torch.channels_last)

    def forward(self, pixels: Tensor) -> Tensor:
        """``pixels`` ``(n, channels, size, size)`` uint8 -> ``(n, width)``."""
        weight = self.net[0].weight
        assert isinstance(weight, Tensor)
        return self.drop(self.net(scale_pixels(pixels, weight.dtype)).flatten(1))
