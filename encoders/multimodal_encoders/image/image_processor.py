"""Pictures as square uint8 tensors, with random variants for training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageColor, ImageFilter
from torch import Tensor

from multimodal.core.encoder import Corruption, Inputs, Processor
from multimodal.core.errors import UsageError
from multimodal.core.parts import Parts
from multimodal.media.corruptions.picture import picture_corruptions
from multimodal.media.image import check_background, is_picture, read_picture
from multimodal.media.parts.patches import patch_parts
from multimodal_encoders.image.augment import Augmentations
from multimodal_encoders.image.descriptor import EDGE, describe

MAX_EDGE = 2048  # of an encoder's pictures, in pixels
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
        stroke: for training, lines become up to this many pixels wider or narrower on each side; 0 for none.
        augment: for training, transforms of ``torchvision.transforms.v2`` as ``{name: {setting: value}}``, applied one
            after another to the ``(channels, size, size)`` uint8 picture, whose shape and type they must keep.
        encoder: whose settings these are, for errors.

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
        stroke: float = 0.0,
        encoder: str = "ImageProcessor",
    ) -> None:
        check_edge(encoder, size)
        self.size, self.jitter, self.background, self.stroke = size, jitter, background, stroke
        self.channels: Literal[1, 3] = channels
        check_background(encoder, background)
        self.variants = Augmentations(encoder, augment, (size, size, channels))

    def is_one_value(self, given: Any) -> bool:
        return is_picture(given)

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

    def parts(self, value: Any) -> Parts:
        """Return the patches of the picture that the encoder sees."""
        return patch_parts(self(value).numpy(), torch.from_numpy)

    def corruptions(self) -> Mapping[str, Corruption]:
        return picture_corruptions(self.background)

    def augment(self, item: Tensor, rng: np.random.Generator) -> Tensor:
        if self.jitter or self.stroke:
            picture = Image.fromarray(item.squeeze(-1).numpy())
            if self.stroke:
                picture = vary_lines(picture, rng.uniform(-self.stroke, self.stroke))
            if self.jitter:
                picture = self._jittered(picture, rng)
            item = torch.from_numpy(np.array(picture).reshape(item.shape))
        return self.variants(item, rng)

    def _jittered(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        shift_x, shift_y, log_scale = rng.uniform(-self.jitter, self.jitter, 3)
        scale = math.exp(log_scale)
        centre = self.size / 2
        return picture.transform(
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

    def preprocessing(self) -> dict[str, Any]:
        return {
            "kind": "picture",
            "mode": "L" if self.channels == 1 else "RGB",
            "background": list(ImageColor.getrgb(self.background)),
            "jpeg_edge": self.size,
            "steps": [
                {"step": "resize_longer", "edge": self.size, "filter": "bilinear"},
                {"step": "pad", "width": self.size, "height": self.size},
            ],
        }

    def examples(self) -> list[Any]:
        rng = np.random.default_rng(0)
        return [rng.integers(0, 256, (24, 32), dtype=np.uint8), rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)]

    def linear_features(self) -> Any:
        """The pixels of a thumbnail in [0, 1], ``(n, channels * 16 * 16)``."""
        return thumbnails(self.channels, self.background)

    def neighbour_features(self) -> Any:
        """A thumbnail, edges and colours, see ``describe``."""
        return descriptions(self.background)

    def collate(self, items: Sequence[Tensor]) -> Inputs:
        """``pixels``: ``(n, channels, size, size)`` uint8, channels last in memory."""
        return {"pixels": torch.stack(list(items)).permute(0, 3, 1, 2)}


def check_edge(encoder: str, edge: int) -> None:
    """Raise a ``UsageError`` if an encoder's pictures would have no pixels, or more than 2048 on an edge."""
    if not 1 <= edge <= MAX_EDGE:
        raise UsageError(f"{encoder}: an edge of {edge} pixels is not between 1 and {MAX_EDGE}.")


def scale_pixels(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert uint8 pixels ``(n, channels, height, width)`` to a number format, scaled to [-1, 1], channels last in memory."""
    return pixels.to(dtype).div_(127.5).sub_(1).contiguous(memory_format=torch.channels_last)


def vary_lines(picture: Image.Image, pixels: float) -> Image.Image:
    """Make dark areas wider, or with a negative number narrower, by this many pixels on each side.

    Whole pixels are grey-scale erosions or dilations by a 3 x 3 square; the rest is a blend with the next one, so that a
    line that is narrower than twice the change fades instead of disappearing.

    Examples:
        >>> line = Image.fromarray(np.array([[255, 255, 0, 255, 255]] * 3, np.uint8))
        >>> [np.asarray(vary_lines(line, pixels))[1].tolist() for pixels in (1, 0.6, -0.6)]
        [[255, 0, 0, 0, 255], [255, 102, 0, 102, 255], [255, 255, 153, 255, 255]]
    """
    change = ImageFilter.MinFilter(3) if pixels > 0 else ImageFilter.MaxFilter(3)
    for _ in range(int(abs(pixels))):
        picture = picture.filter(change)
    rest = abs(pixels) % 1
    return Image.blend(picture, picture.filter(change), rest) if rest else picture


def thumbnails(channels: Literal[1, 3], background: str) -> Any:
    """The transformer of scikit-learn for the linear baseline of pictures."""
    from sklearn.preprocessing import FunctionTransformer

    return FunctionTransformer(_Thumbnails(channels, background))


def descriptions(background: str) -> Any:
    """The transformer of scikit-learn by whose features like pictures are found."""
    from sklearn.preprocessing import FunctionTransformer

    return FunctionTransformer(_Descriptions(background))


@dataclass(frozen=True)
class _Descriptions:
    """Raw values -> ``(n, f)`` float32, see ``describe``."""

    background: str

    def __call__(self, values: Sequence[Any]) -> np.ndarray:
        read = ImageProcessor(EDGE, 3, background=self.background)
        return describe(np.stack([read(value).numpy() for value in values]).astype(np.float32) / 255)


@dataclass(frozen=True)
class _Thumbnails:
    """Raw values -> ``(n, pixels)`` float32 in [0, 1]."""

    channels: Literal[1, 3]
    background: str

    def __call__(self, values: Sequence[Any]) -> np.ndarray:
        read = ImageProcessor(THUMBNAIL_EDGE, self.channels, background=self.background)
        return np.stack([read(value).numpy().ravel() for value in values]).astype(np.float32) / 255
