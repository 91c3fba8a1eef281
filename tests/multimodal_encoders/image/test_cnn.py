"""Pictures go through a residual network of torchvision to features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from multimodal_encoders.image.cnn import CNN
from torch import nn
from torchvision import models

from multimodal.core.errors import UsageError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 6), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 6, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("arch", "stem", "channels", "size", "edges"),
    [
        ("resnet18", "small", 1, 48, [24, 12, 6, 3]),
        ("resnet18", "small", 3, 17, [9, 5, 3, 2]),
        ("resnet18", "standard", 1, 64, [16, 8, 4, 2]),
        ("resnet18", "standard", 3, 48, [12, 6, 3, 2]),
        ("resnet50", "small", 1, 16, [8, 4, 2, 1]),
        ("resnext50_32x4d", "standard", 3, 32, [8, 4, 2, 1]),
    ],
)
def test_a_picture_goes_through_the_stages_to_features(
    arch: str, stem: Any, channels: Any, size: int, edges: list[int]
) -> None:
    encoder = CNN(arch, size, channels, stem).eval()
    seen: list[int] = []
    for name in ("layer1", "layer2", "layer3", "layer4"):
        stage = encoder.net.get_submodule(name)
        stage.register_forward_hook(lambda module, given, out: seen.append(out.shape[-1]))
    reader = encoder.processor
    pixels = reader.collate([reader(GREY), reader(COLOUR)])["pixels"]
    assert pixels.dtype == torch.uint8
    before = pixels.clone()
    with torch.no_grad():
        features = encoder(pixels)
    assert features.shape == (2, encoder.width)
    assert encoder.width == (512 if arch == "resnet18" else 2048)
    assert features.dtype == torch.float32
    assert seen == edges
    assert torch.equal(pixels, before)


def test_the_standard_network_is_torchvision_s_on_pixels_from_minus_one_to_one() -> None:
    encoder = CNN("resnet18", 32, 3, "standard").eval()
    peer = models.resnet18(weights=None)
    peer.fc = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    peer.load_state_dict(encoder.net.state_dict())
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    pixels[0, 0, 0, :2] = torch.tensor([0, 255])
    with torch.no_grad():
        expected = peer.eval()((pixels.float() - 127.5) / 127.5)
        torch.testing.assert_close(encoder(pixels), expected, atol=1e-4, rtol=1e-4)


def test_the_features_of_a_batch_are_those_of_its_pictures() -> None:
    encoder = CNN("resnet18", 24, 3).eval()
    items = [encoder.processor(RNG.integers(0, 256, (20, 24 + n, 3), dtype=np.uint8)) for n in range(4)]
    with torch.no_grad():
        together = encoder(**encoder.processor.collate(items))
        alone = [encoder(**encoder.processor.collate([item])) for item in items]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_features_drop_out_in_training_only() -> None:
    encoder = CNN("resnet18", 16, drop=0.5)
    encoder.processor.augment(encoder.processor(GREY), np.random.default_rng(0))
    pixels = encoder.processor.collate([encoder.processor(GREY), encoder.processor(255 - GREY)])["pixels"]
    with torch.no_grad():
        dropped = (encoder(pixels) == 0).float().mean()
        kept = (encoder.eval()(pixels) == 0).float().mean()
    assert dropped > kept + 0.3


@pytest.mark.parametrize("arch", ["resnet", "densenet121", "ResNet18", ""])
def test_a_network_that_is_not_a_residual_network_is_refused_with_the_known_ones(arch: str) -> None:
    with pytest.raises(UsageError, match=rf"arch '{arch}' is not one of .*resnet18, .*wide_resnet50_2"):
        CNN(arch)


def test_an_unknown_stem_is_refused() -> None:
    with pytest.raises(UsageError, match=r"stem must be small or standard .* got 'smal'"):
        CNN(stem="smal")  # pyright: ignore[reportArgumentType]


def test_a_number_of_channels_other_than_one_and_three_is_refused() -> None:
    with pytest.raises(UsageError, match=r"channels 1 or 3, got .* and 2"):
        CNN(channels=2)  # pyright: ignore[reportArgumentType]
