"""What the libraries of pretrained weights do to a picture, described for programs without these libraries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image

FILTERS = ("box", "bilinear", "hamming", "bicubic", "lanczos")
Step = dict[str, Any]


def describe_steps(fit: Callable[[Image.Image], Image.Image]) -> list[Step] | None:
    """Describe resizing and cropping by torchvision's transforms; None if there is any other transform among them.

    Args:
        fit: torchvision's ``Compose``, or a preprocessing with its own ``steps()``.

    Examples:
        >>> from torchvision.transforms import CenterCrop, Compose, Resize
        >>> describe_steps(Compose([Resize(40), CenterCrop(32)]))
        [{'step': 'resize_shorter', 'edge': 40, 'filter': 'bilinear'}, {'step': 'crop', 'width': 32, 'height': 32}]
    """
    from torchvision.transforms import CenterCrop, Compose, Resize

    if hasattr(fit, "steps"):
        return fit.steps()  # pyright: ignore[reportFunctionMemberAccess]
    if not isinstance(fit, Compose):
        return None
    steps: list[Step | None] = []
    for transform in fit.transforms:
        if type(transform) is Resize and transform.max_size is None:
            steps.append(resize_step(transform.size, transform.interpolation))
        elif type(transform) is CenterCrop:
            steps.append(crop_step(transform.size))
        else:
            return None
    return all_or_none(steps)


def all_or_none(steps: list[Step | None]) -> list[Step] | None:
    """Return the steps, or None if one of them has no description."""
    known = [step for step in steps if step is not None]
    return known if len(known) == len(steps) else None


def resize_step(size: Any, interpolation: Any) -> Step | None:
    """Describe torchvision's resizing.

    Args:
        size: of the shorter edge, or (height, width).
        interpolation: of torchvision; None is returned for one without antialiasing.
    """
    if interpolation.value not in FILTERS:
        return None
    edges = [size] if isinstance(size, int) else list(size)
    if len(edges) == 1:
        return {"step": "resize_shorter", "edge": edges[0], "filter": interpolation.value}
    return {"step": "resize", "width": edges[1], "height": edges[0], "filter": interpolation.value}


def crop_step(size: Any) -> Step:
    """Describe torchvision's cropping of the middle.

    Args:
        size: (height, width), or one number.
    """
    edges = [size] if isinstance(size, int) else list(size)
    return {"step": "crop", "width": edges[-1], "height": edges[0]}
