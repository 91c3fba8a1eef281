"""The processor of small squares, pictures as files, and what a square is compared with."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
import torch
from multimodal_encoders.image.image_processor import ImageProcessor
from PIL import Image
from torch import Tensor


def processor(size: int = 6, channels: Literal[1, 3] = 1, jitter: float = 0.0) -> ImageProcessor:
    return ImageProcessor(size, channels, jitter)


def file_of(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


def luma(rgb: np.ndarray) -> np.ndarray:
    """ITU-R 601-2 luma, which Pillow documents for the conversion to grey."""
    return (rgb.astype(np.float64) @ [299, 587, 114]) / 1000


def assert_near(item: Tensor, expected: np.ndarray, steps: float = 1.0) -> None:
    assert item.dtype == torch.uint8
    np.testing.assert_allclose(item.numpy().astype(np.float64).squeeze(), expected, atol=steps)
