"""Encoders of pictures."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from multimodal.core.encoder import Encoder, Inputs, Processor
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.registry import register

if TYPE_CHECKING:
    from torchvision.models import ResNet


class ImageProcessor(Processor):
    """Pictures of any size -> square uint8 tensors.

    Raw values: a path, the bytes of an image file, a PIL image, or a uint8 array ``(h, w)``, ``(h, w, 3)`` or ``(h, w, 4)``.
    A picture is turned upright (EXIF), laid on a white ground, made square with it, and resized with antialiasing.

    Args:
        size: edge of the square, in pixels.
        channels: 1 for grey, 3 for RGB.
        jitter: for training, the largest random shift (as a part of the edge) and change of scale; 0 for none.
    """

    def __init__(self, size: int, channels: Literal[1, 3], jitter: float) -> None:
        self.size, self.channels, self.jitter = size, channels, jitter

    def __call__(self, value: Any) -> Tensor:
        picture = _opened(value, "L" if self.channels == 1 else "RGB")
        edge = max(picture.size)
        if picture.size != (edge, edge):
            square = Image.new(picture.mode, (edge, edge), "white")
            square.paste(picture, ((edge - picture.width) // 2, (edge - picture.height) // 2))
            picture = square
        if edge != self.size:
            picture = picture.resize((self.size, self.size), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(picture).reshape(self.size, self.size, self.channels))

    def augment(self, item: Tensor, rng: np.random.Generator) -> Tensor:
        if not self.jitter:
            return item
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
            fillcolor="white",
        )  # fmt: skip
        return torch.from_numpy(np.array(picture).reshape(item.shape))

    def collate(self, items: Sequence[Tensor]) -> Inputs:
        """``pixels``: ``(n, channels, size, size)`` uint8, channels last in memory."""
        return {"pixels": torch.stack(list(items)).permute(0, 3, 1, 2)}


def _opened(value: Any, mode: str) -> Image.Image:
    """The upright picture on a white ground, in mode "L" or "RGB"."""
    shown = f"{len(value)} bytes" if isinstance(value, bytes) else f"a {type(value).__name__}"
    if isinstance(value, str | Path):
        shown = str(value)
    try:
        picture = ImageOps.exif_transpose(_open(value))
        if not picture.width * picture.height:
            raise ValueError("it has no pixels")
        return _on_white(_of_eight_bits(picture)).convert(mode)
    except FileNotFoundError as error:
        raise MultimodalError(f"the picture {shown} does not exist.") from error
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise MultimodalError(f"{shown} is no picture that can be read ({error}).") from error


def _open(value: Any) -> Image.Image:
    if isinstance(value, Image.Image):
        value.load()
        return value
    if isinstance(value, np.ndarray):
        colours = value.ndim == 3 and value.shape[2] in (3, 4) and value.dtype == np.uint8
        grey = value.ndim == 2 and value.dtype in (np.uint8, np.uint16, np.bool_)
        if not (colours or grey):
            raise ValueError(f"shape {value.shape}, type {value.dtype}; give (h, w), (h, w, 3) or (h, w, 4) of uint8")
        return Image.fromarray(value)
    if not isinstance(value, str | Path | bytes):
        raise ValueError("give a path, bytes, a PIL image or an array")
    picture = Image.open(io.BytesIO(value) if isinstance(value, bytes) else value)
    picture.load()
    return picture


def _of_eight_bits(picture: Image.Image) -> Image.Image:
    if picture.mode == "F":
        raise ValueError("the range of floating-point pixels is not known")
    if picture.mode.startswith("I"):  # 16 bits a pixel; Pillow's own conversion would cut at 255
        return Image.fromarray((np.asarray(picture).clip(0, 65535) // 257).astype(np.uint8))
    return picture


def _on_white(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture
    ground = Image.new("RGBA", picture.size, "white")
    ground.alpha_composite(picture.convert("RGBA"))
    return ground.convert("RGB")


@register("image", "cnn")
class CNN(Encoder):
    """A residual network of torchvision (He et al. 2016), with a stem for small pictures.

    Args:
        arch: torchvision's name: resnet18, resnet34, resnet50, wide_resnet50_2, resnext50_32x4d, ...
        size: pictures are brought to ``size`` x ``size`` pixels.
        channels: 1 for grey, 3 for RGB.
        stem: "small" is one 3x3 convolution of stride 2 (a 48-pixel picture goes through the stages at 24, 12, 6 and 3);
            "standard" the 7x7 convolution and pooling made for 224 pixels, which divide by 4.
        jitter: in training, random shift and scale up to this part of the picture's edge.
        drop: dropout of the pooled features.
    """

    def __init__(
        self,
        arch: str = "resnet18",
        size: int = 48,
        channels: Literal[1, 3] = 1,
        stem: Literal["small", "standard"] = "small",
        jitter: float = 0.05,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        from torchvision import models

        if stem not in ("small", "standard") or channels not in (1, 3):
            raise UsageError(f"CNN: stem is small or standard and channels 1 or 3, got {stem!r} and {channels!r}.")
        known = models.list_models(module=models, include="*resne[tx]*")
        if arch not in known:
            raise UsageError(f"CNN: arch {arch!r} is none of torchvision's residual networks: {', '.join(known)}.")
        self.processor = ImageProcessor(size, channels, jitter)
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
