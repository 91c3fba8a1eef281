"""Random variants of pictures for training, by the transforms of torchvision."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multimodal.core.errors import UsageError, suggest


class Augmentations:
    """Transforms of ``torchvision.transforms.v2``, applied one after another to uint8 pictures.

    Args:
        encoder: the encoder with the setting ``augment``, for errors.
        named: ``[{name: {setting: value}}]``; the setting ``transforms`` is such a list itself.
        shape: ``(height, width, channels)`` of the pictures, which they must keep, as the type.

    Raises:
        UsageError: an unknown transform or setting, or one that changes the shape or type of a picture.

    Examples:
        >>> flip = Augmentations("cnn", [{"RandomHorizontalFlip": {"p": 1.0}}], (1, 2, 1))
        >>> flip(torch.tensor([[[1], [2]]], dtype=torch.uint8), np.random.default_rng(0)).flatten().tolist()
        [2, 1]
    """

    def __init__(
        self, encoder: str, named: Sequence[Mapping[str, Mapping[str, Any]]], shape: tuple[int, int, int]
    ) -> None:
        self._transforms = _transforms(encoder, named)
        item = torch.zeros(shape, dtype=torch.uint8)
        try:
            got = self._transformed(item, 0)
        except Exception as error:  # whatever the transforms do with a picture that is not theirs
            raise UsageError(f"{encoder}: augment fails on a picture of shape {shape}: {error}") from error
        if (got.shape, got.dtype) != (item.shape, item.dtype):
            raise UsageError(
                f"{encoder}: augment makes {got.dtype} of shape {tuple(got.shape)}; it must keep {item.dtype} and the size"
                f" {' x '.join(map(str, shape))}."
            )

    def __call__(self, item: Tensor, rng: np.random.Generator) -> Tensor:
        """A variant of a ``(height, width, channels)`` picture; where there are no transforms, the picture itself."""
        return self._transformed(item, int(rng.integers(2**63))) if self._transforms else item

    def _transformed(self, item: Tensor, seed: int) -> Tensor:
        pixels = item.permute(2, 0, 1)
        with torch.random.fork_rng(devices=[]):  # they draw from torch's own generator, which others use too
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed accelerators as well
            for transform in self._transforms:
                pixels = transform(pixels)
        return pixels.permute(1, 2, 0)


def _transforms(encoder: str, named: Sequence[Mapping[str, Mapping[str, Any]]]) -> list[nn.Module]:
    from torchvision.transforms import InterpolationMode, v2

    known = {name: cls for name, cls in vars(v2).items() if inspect.isclass(cls) and issubclass(cls, v2.Transform)}
    made = []
    for entry in named:
        if not isinstance(entry, Mapping) or len(entry) != 1:
            raise UsageError(f"{encoder}: augment takes a list of {{name: {{setting: value}}}}, got {entry!r} in it.")
        ((name, given),) = entry.items()
        if name not in known:
            raise UsageError(
                f"{encoder}: augment names {name!r}, which is not a torchvision transform.{suggest(name, list(known))}"
            )
        try:
            settings = dict(given or {})
            if "transforms" in settings:
                settings["transforms"] = _transforms(encoder, settings["transforms"])
            if isinstance(settings.get("interpolation"), str):
                settings["interpolation"] = InterpolationMode(settings["interpolation"])
            made.append(known[name](**settings))
        except (TypeError, ValueError) as error:
            raise UsageError(f"{encoder}: augment cannot create {name} with {given}: {error}") from error
    return made
