"""Drawings go through halving stages to features that keep their places."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from multimodal_encoders.image.small_cnn import SmallCNN
from torch.nn import functional

from multimodal.core.errors import UsageError

RNG = np.random.default_rng(0)


@given(
    size=st.integers(1, 40),
    channels=st.sampled_from([1, 3]),
    widths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    depth=st.integers(1, 3),
)
@settings(max_examples=25, deadline=None)
def test_the_width_is_that_of_the_features(size: int, channels: Any, widths: list[int], depth: int) -> None:
    encoder = SmallCNN(size, channels, widths, depth).eval()
    items = [encoder.processor(value) for value in encoder.processor.examples()]
    pixels = encoder.processor.collate(items)["pixels"]
    before = pixels.clone()
    features = encoder(pixels)
    assert (features.shape, features.dtype) == ((len(items), encoder.width), torch.float32)
    assert torch.equal(pixels, before)


def test_it_is_the_formula() -> None:
    encoder = SmallCNN(8, 3, [4, 5], depth=2).double().eval()
    for number, buffer in enumerate(encoder.buffers()):
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(number))
    pixels = torch.from_numpy(RNG.integers(0, 256, (2, 3, 8, 8), dtype=np.uint8))
    expected = pixels.double() / 127.5 - 1
    layers = iter(encoder.net)
    for stride in (2, 1, 2, 1):
        convolution, norm, _ = next(layers), next(layers), next(layers)
        expected = functional.conv2d(expected, convolution.weight, stride=stride, padding=1)  # pyright: ignore
        mean, deviation = norm.running_mean, (norm.running_var + norm.eps).sqrt()  # pyright: ignore
        expected = ((expected - mean[:, None, None]) / deviation[:, None, None]).clamp(min=0)  # pyright: ignore
    with torch.no_grad():
        torch.testing.assert_close(encoder(pixels), expected.flatten(1))


def test_features_say_where_a_dot_is() -> None:
    torch.manual_seed(0)
    encoder = SmallCNN(32, widths=[4, 8, 8]).eval()
    drawings = torch.full((2, 1, 32, 32), 255, dtype=torch.uint8)
    drawings[0, :, 6:8, 6:8] = 0
    drawings[1, :, 22:24, 22:24] = 0  # moved by a multiple of the strides, so an average over positions would be equal
    with torch.no_grad():
        above, below = encoder(drawings).reshape(2, 8, 4, 4)
    assert (above - below).abs().max() > 1e-3


def test_features_drop_out_in_training_only() -> None:
    encoder = SmallCNN(16, widths=[8, 8], drop=0.5)
    pixels = torch.from_numpy(RNG.integers(0, 256, (4, 1, 16, 16), dtype=np.uint8))
    with torch.no_grad():
        dropped = (encoder(pixels) == 0).float().mean()
        kept = (encoder.eval()(pixels) == 0).float().mean()
    assert dropped > kept + 0.15


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": 0}, "size must be at least 1"),
        ({"channels": 2}, "channels 1 or 3, got 48 and 2"),
        ({"widths": []}, "widths and depth must be at least 1"),
        ({"widths": [8, 0]}, "widths and depth must be at least 1"),
        ({"depth": 0}, "widths and depth must be at least 1"),
        ({"stroke": -1.0}, "stroke and jitter must be at least 0"),
        ({"jitter": float("nan")}, "stroke and jitter must be at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        SmallCNN(**settings)
