"""Preprocessing of pretrained image encoders: resized by the weights' own library, normalised in the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageColor
from torch import Tensor, nn

from multimodal.core.encoder import Corruption, Inputs, Processor
from multimodal.core.parts import Parts
from multimodal.media.corruptions.picture import picture_corruptions
from multimodal.media.image import check_background, is_picture, read_picture
from multimodal.media.parts.patches import patch_parts
from multimodal_encoders.image.augment import Augmentations
from multimodal_encoders.image.fit_steps import describe_steps
from multimodal_encoders.image.image_processor import check_edge, descriptions, thumbnails

MAX_ASPECT_RATIO = 100  # edges of a picture differ by at most this factor; of a longer one the middle is taken

Fit = Callable[[Image.Image], Image.Image]


class PretrainedImageProcessor(Processor):
    """Turns pictures of any size into uint8 tensors, resized and cropped by the library of the weights.

    Raw values: a path, the bytes of an image file, a PIL image, or a uint8 array or tensor ``(h, w)``, ``(h, w, 3)`` or
    ``(h, w, 4)``.
    A picture is turned upright (EXIF), laid on a ground and converted to RGB first; the libraries do not do the first two, and
    convert colours after resizing.

    Args:
        encoder: the encoder's name, for error texts.
        preprocess: the library's description of ``fit``.
        fit: resizes and crops an RGB picture to ``size``.
        size: ``(height, width)``, in pixels.
        background: colour of the ground, by a name or as ``#rrggbb``.
        augment: for training, transforms of ``torchvision.transforms.v2``, see ``Augmentations``.

    Examples:
        >>> processor = PretrainedImageProcessor("mine", {}, lambda picture: picture.resize((4, 4)), (4, 4))
        >>> processor.collate([processor(np.zeros((20, 30), np.uint8))])["pixels"].shape
        torch.Size([1, 3, 4, 4])
    """

    reads_files = True

    def __init__(
        self,
        encoder: str,
        preprocess: Mapping[str, Any],
        fit: Fit,
        size: tuple[int, int],
        background: str = "white",
        augment: Sequence[Mapping[str, Mapping[str, Any]]] = (),
    ) -> None:
        check_background(encoder, background)
        for edge in size:
            check_edge(encoder, edge)
        self.preprocess, self.size, self.background = dict(preprocess), size, background
        self._fit = fit
        self._variants = Augmentations(encoder, augment, (*size, 3))

    def is_one_value(self, given: Any) -> bool:
        return is_picture(given)

    def __call__(self, value: Any) -> Tensor:
        picture = read_picture(value, "RGB", None, self.background)
        return torch.from_numpy(np.array(self._fit(_limit_aspect_ratio(picture))))

    def parts(self, value: Any) -> Parts:
        """Return the patches of the picture that the encoder sees."""
        return patch_parts(self(value).numpy(), torch.from_numpy)

    def corruptions(self) -> Mapping[str, Corruption]:
        return picture_corruptions(self.background)

    def augment(self, item: Tensor, rng: np.random.Generator) -> Tensor:
        return self._variants(item, rng)

    def preprocessing(self) -> dict[str, Any] | None:
        steps = describe_steps(self._fit)
        if steps is None:
            return None
        return {
            "kind": "picture",
            "mode": "RGB",
            "background": list(ImageColor.getrgb(self.background)),
            "jpeg_edge": None,
            "steps": [{"step": "limit_aspect_ratio", "ratio": MAX_ASPECT_RATIO}, *steps],
        }

    def examples(self) -> list[Any]:
        rng = np.random.default_rng(0)
        return [rng.integers(0, 256, size, dtype=np.uint8) for size in ((24, 32, 3), (40, 30), (9, 64, 3))]

    def linear_features(self) -> Any:
        """The pixels of a thumbnail in [0, 1], ``(n, 3 * 16 * 16)``."""
        return thumbnails(3, self.background)

    def neighbour_features(self) -> Any:
        """A thumbnail, edges and colours, see ``describe``."""
        return descriptions(self.background)

    def collate(self, items: Sequence[Tensor]) -> Inputs:
        """``pixels``: ``(n, 3, height, width)`` uint8, channels last in memory."""
        return {"pixels": torch.stack(list(items)).permute(0, 3, 1, 2)}


def _limit_aspect_ratio(picture: Image.Image) -> Image.Image:
    """Resized by its shorter edge, a line of a thousand pixels would need gigabytes."""
    width, height = (min(edge, MAX_ASPECT_RATIO * min(picture.size)) for edge in picture.size)
    if (width, height) == picture.size:
        return picture
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


class Normalize(nn.Module):
    """Normalises pictures: ``(pixels / 255 - mean) / std``, computed in float32.

    Args:
        mean: of each channel.
        std: of each channel.

    Examples:
        >>> normalize = Normalize(mean=[0.5] * 3, std=[0.5] * 3)
        >>> normalize(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8), torch.float32).flatten().tolist()
        [1.0, 1.0, 1.0]
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor, dtype: torch.dtype) -> Tensor:
        """Normalise ``(n, 3, h, w)`` uint8, in channels-last order."""
        scaled = pixels.float().div_(255).sub_(self.mean).div_(self.std)
        return scaled.to(dtype).contiguous(memory_format=torch.channels_last)
