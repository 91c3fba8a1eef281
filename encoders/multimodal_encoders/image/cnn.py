"""Encoders of pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from multimodal.core.encoder import Encoder, Inputs, Processor
from multimodal.core.errors import UsageError
from multimodal.core.registry import register
from multimodal.media.image import check_background, is_picture, read_picture
from multimodal_encoders.image.augment import Augmentations

if TYPE_CHECKING:
    from torchvision.models import ResNet


THUMBNAIL_EDGE = 16  # edge of the pictures of the linear baseline


class ImageProcessor(Processor):
    """Turns pictures of any size into square uint8 tensors.

    Raw values: a path, the bytes of an image file, a PIL image, or a uint8 array or tensor ``(h, w)``, ``(h, w, 3)`` or
    ``(h, w, 4)``.
    A picture is turned upright (EXIF), laid on a ground, resized with antialiasing and made square with the ground.

    Args:
        size: edge of the square, in pixels.
        channels: 1 for grey, 3 for RGB.
        jitter: for training, the largest random shift (as a fraction of the edge) and change of scale; 0 for none.
        background: colour of the ground, by a name or as ``#rrggbb``.
        augment: for training, transforms of ``torchvision.transforms.v2`` as ``{name: {setting: value}}``, applied one
            after another to the ``(channels, size, size)`` uint8 picture, whose shape and type they must keep.

    Examples:
        >>> processor = ImageProcessor(size=8, channels=1)
        >>> processor.collate([processor(np.zeros((20, 30), np.uint8))])["pixels"].shape
        torch.Size([1, 1, 8, 8])
    """

    reads_files = True

    def __init__(
        self,
        size: int,
        channels: Literal[1, 3],
        jitter: float = 0.0,
        background: str = "white",
        augment: Sequence[Mapping[str, Mapping[str, Any]]] = (),
    ) -> None:
        self.size, self.jitter, self.background = size, jitter, background
        self.channels: Literal[1, 3] = channels
        check_background("CNN", background)
        self.variants = Augmentations("CNN", augment, (size, size, channels))

    def is_one_value(self, array: np.ndarray | Tensor) -> bool:
        return is_picture(array)

    def __call__(self, value: Any) -> Tensor:
        picture = read_picture(value, "L" if self.channels == 1 else "RGB", self.size, self.background)
        scale = self.size / max(picture.size)
        fitted = [max(round(edge * scale), 1) for edge in picture.size]
        if picture.size != (
            fitted[0],
            fitted[1],
        ):  # before it is made square: a long, thin one would need a vast ground
            picture = picture.resize((fitted[0], fitted[1]), Image.Resampling.BILINEAR)
        if fitted != [self.size, self.size]:
            square = Image.new(picture.mode, (self.size, self.size), self.background)
            square.paste(picture, ((self.size - fitted[0]) // 2, (self.size - fitted[1]) // 2))
            picture = square
        return torch.from_numpy(np.array(picture).reshape(self.size, self.size, self.channels))

    def augment(self, item: Tensor, rng: np.random.Generator) -> Tensor:
        if self.jitter:
            item = self._jittered(item, rng)
        return self.variants(item, rng)

    def _jittered(self, item: Tensor, rng: np.random.Generator) -> Tensor:
        shift_x, shift_y, log_scale = rng.uniform(-self.jitter, self.jitter, 3)
        scale = math.exp(log_scale)
        centre = self.size / 2
        picture = Image.fromarray(item.squeeze(-1).numpy()).transform(
            (self.size, self.size),
            Image.Transform.AFFINE,
            # output -> input coordinates: about the centre by 1 / scale, then shifted
            (
                scale, 0, centre - scale * centre + shift_x * self.size,
                0, scale, centre - scale * centre + shift_y * self.size,
            ),
            Image.Resampling.BILINEAR,
            fillcolor=self.background,
        )  # fmt: skip
        return torch.from_numpy(np.array(picture).reshape(item.shape))

    def examples(self) -> list[Any]:
        rng = np.random.default_rng(0)
        return [rng.integers(0, 256, (24, 32), dtype=np.uint8), rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)]

    def linear_features(self) -> Any:
        """The pixels of a thumbnail in [0, 1], ``(n, channels * 16 * 16)``."""
        return thumbnails(self.channels, self.background)

    def collate(self, items: Sequence[Tensor]) -> Inputs:
        """``pixels``: ``(n, channels, size, size)`` uint8, channels last in memory."""
        return {"pixels": torch.stack(list(items)).permute(0, 3, 1, 2)}


def thumbnails(channels: Literal[1, 3], background: str) -> Any:
    """The transformer of scikit-learn for the linear baseline of pictures."""
    from sklearn.preprocessing import FunctionTransformer

    return FunctionTransformer(_Thumbnails(channels, background))


@dataclass(frozen=True)
class _Thumbnails:
    """Raw values -> ``(n, pixels)`` float32 in [0, 1]."""

    channels: Literal[1, 3]
    background: str

    def __call__(self, values: Sequence[Any]) -> np.ndarray:
        read = ImageProcessor(THUMBNAIL_EDGE, self.channels, background=self.background)
        return np.stack([read(value).numpy().ravel() for value in values]).astype(np.float32) / 255


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
        self.processor = ImageProcessor(size, channels, jitter, background, augment or ())
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
        scaled = pixels.to(self.net.conv1.weight.dtype).div_(127.5).sub_(1)
        return self.net(scaled.contiguous(memory_format=torch.channels_last))
