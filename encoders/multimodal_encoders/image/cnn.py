"""The residual networks of torchvision as encoders of pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn

from multimodal.core.encoder import Encoder
from multimodal.core.errors import UsageError
from multimodal.core.registry import register
from multimodal_encoders.image.image_processor import ImageProcessor, scale_pixels

if TYPE_CHECKING:
    from torchvision.models import ResNet


@register("image", "cnn")
class CNN(Encoder):
    """A residual network of torchvision (He et al. 2016), with a stem for small pictures.

    Args:
        arch: torchvision's name: resnet18, resnet34, resnet50, wide_resnet50_2, resnext50_32x4d, ...
        size: pictures are resized to ``size`` x ``size`` pixels.
        channels: 1 for grey, 3 for RGB.
        stem: "small" is one 3x3 convolution of stride 2 (a 48-pixel picture goes through the stages at 24, 12, 6 and 3);
            "standard" the 7x7 convolution and pooling made for 224 pixels, which divide by 4.
        jitter: in training, random shift and scale up to this fraction of the picture's edge.
        drop: dropout of the pooled features.
        background: what transparent pictures lie on and others are made square with: a colour's name, or ``#rrggbb``.
        augment: in training, transforms of ``torchvision.transforms.v2`` in their order, by their names and settings:
            ``[{RandomHorizontalFlip: {p: 0.5}}, {ColorJitter: {brightness: 0.3}}]``.

    Examples:
        >>> encoder = CNN(size=16)
        >>> encoder(torch.zeros(2, 1, 16, 16, dtype=torch.uint8)).shape
        torch.Size([2, 512])
    """

    def __init__(
        self,
        arch: str = "resnet18",
        size: int = 48,
        channels: Literal[1, 3] = 1,
        stem: Literal["small", "standard"] = "small",
        jitter: float = 0.05,
        drop: float = 0.0,
        background: str = "white",
        augment: list[dict[str, dict[str, Any]]] | None = None,
    ) -> None:
        super().__init__()
        from torchvision import models

        if stem not in ("small", "standard") or channels not in (1, 3):
            raise UsageError(f"CNN: stem must be small or standard and channels 1 or 3, got {stem!r} and {channels!r}.")
        known = models.list_models(module=models, include="*resne[tx]*")
        if arch not in known:
            raise UsageError(f"CNN: arch {arch!r} is not one of torchvision's residual networks: {', '.join(known)}.")
        self.processor = ImageProcessor(size, channels, jitter, background, augment or (), encoder="CNN")
        self.net = cast("ResNet", models.get_model(arch, weights=None))
        self.width = self.net.fc.in_features
        stem_width = self.net.conv1.out_channels
        self.net.fc = nn.Dropout(drop)  # pyright: ignore[reportAttributeAccessIssue]
        if stem == "small":
            self.net.conv1 = nn.Conv2d(channels, stem_width, 3, stride=2, padding=1, bias=False)
            self.net.maxpool = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
        elif channels != 3:
            self.net.conv1 = nn.Conv2d(channels, stem_width, 7, stride=2, padding=3, bias=False)
        self.to(memory_format=torch.channels_last)

    def forward(self, pixels: Tensor) -> Tensor:
        """``pixels`` ``(n, channels, size, size)`` uint8 -> ``(n, width)``."""
        return self.net(scale_pixels(pixels, self.net.conv1.weight.dtype))
