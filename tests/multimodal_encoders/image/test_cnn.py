"""Squares have variants for training, and become features."""

from __future__ import annotations

import pickle
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from multimodal_encoders.image.cnn import CNN, ImageProcessor
from PIL import Image
from square_pictures import assert_near, file_of, processor
from torch import nn
from torchvision import models

from multimodal.core.errors import UsageError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 6), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 6, 3), dtype=np.uint8)


# variants for training


@given(seed=st.integers(0, 2**32), channels=st.sampled_from([1, 3]), jitter=st.floats(0.01, 0.5))
@settings(max_examples=25, deadline=None)
def test_a_variant_is_determined_by_the_random_numbers(seed: int, channels: Literal[1, 3], jitter: float) -> None:
    reader = processor(12, channels, jitter)
    item = reader(COLOUR)
    before = item.clone()
    one, two = (reader.augment(item, np.random.default_rng(seed)) for _ in range(2))
    assert torch.equal(one, two)
    assert (one.shape, one.dtype) == (item.shape, torch.uint8)
    assert torch.equal(item, before)


def test_variants_differ() -> None:
    reader, rng = processor(12, 3, 0.2), np.random.default_rng(0)
    item = reader(COLOUR)
    assert len({reader.augment(item, rng).numpy().tobytes() for _ in range(10)}) == 10


def test_without_jitter_the_item_remains() -> None:
    item = processor(12)(GREY)
    assert torch.equal(processor(12).augment(item, np.random.default_rng(0)), item)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_variant_is_shifted_and_scaled_no_further_than_the_jitter(channels: Literal[1, 3]) -> None:
    jitter, size = 0.1, 60
    reader, rng = processor(size, channels, jitter), np.random.default_rng(0)
    item = torch.full((size, size, channels), 255, dtype=torch.uint8)
    item[20:40, 20:40] = 0  # a black square of 20 in the middle
    places = (np.arange(size) + 0.5) / size
    shifts, areas = [], []
    for _ in range(40):
        ink = 255 - reader.augment(item, rng).numpy()[..., 0].astype(np.float64)
        shifts.append([ink.sum(axis=axis) @ places / ink.sum() - 0.5 for axis in (0, 1)])
        areas.append(ink.sum() / 255 / 400)
    assert 0.06 < np.abs(shifts).max() <= jitter * np.exp(jitter) + 0.005
    assert (np.min(shifts, axis=0) < -0.05).all()
    assert (np.max(shifts, axis=0) > 0.05).all()
    assert abs(np.corrcoef(np.array(shifts).T)[0, 1]) < 0.5  # across and down on their own
    assert np.exp(-2 * jitter) - 0.02 <= min(areas) < 0.9
    assert 1.1 < max(areas) <= np.exp(2 * jitter) + 0.02


# transforms of torchvision


def transformed(*named: dict[str, Any], size: int = 12) -> ImageProcessor:
    return ImageProcessor(size, 3, augment=named)


FLIP = {"RandomHorizontalFlip": {"p": 1.0}}


def test_named_transforms_are_applied_in_their_order() -> None:
    item = processor(12, 3)(COLOUR)
    variant = transformed(FLIP, {"RandomInvert": {"p": 1.0}}).augment(item, np.random.default_rng(0))
    assert torch.equal(variant, 255 - item.flip(1))
    rotated = transformed({"RandomRotation": {"degrees": [90, 90], "interpolation": "bilinear"}})
    assert_near(rotated.augment(item, np.random.default_rng(0)), np.rot90(item.numpy()))


def test_transforms_may_hold_others() -> None:
    item = processor(12, 3)(COLOUR)
    reader = transformed({"RandomApply": {"transforms": [FLIP], "p": 0.5}})
    rng = np.random.default_rng(0)
    seen = [reader.augment(item, rng) for _ in range(40)]
    flipped = sum(torch.equal(variant, item.flip(1)) for variant in seen)
    assert 8 < flipped < 32
    assert flipped + sum(torch.equal(variant, item) for variant in seen) == 40


@given(seed=st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_a_transform_draws_from_the_given_random_numbers_alone(seed: int) -> None:
    reader = transformed(
        {"RandomResizedCrop": {"size": 12, "scale": [0.3, 1.0]}}, {"ColorJitter": {"brightness": 0.5, "hue": 0.2}}
    )
    item = processor(12, 3)(COLOUR)
    torch.manual_seed(seed)
    untouched = torch.rand(3)
    torch.manual_seed(seed)
    one = reader.augment(item, np.random.default_rng(seed))
    assert torch.equal(torch.rand(3), untouched)
    torch.manual_seed(seed + 1)
    two = pickle.loads(pickle.dumps(reader)).augment(item, np.random.default_rng(seed))
    assert torch.equal(one, two)
    assert (one.shape, one.dtype) == (item.shape, torch.uint8)
    assert not torch.equal(one, reader.augment(item, np.random.default_rng(seed + 1)))


@pytest.mark.parametrize(
    ("augment", "said"),
    [
        (
            [{"RandomHorizontalFlop": {}}],
            "'RandomHorizontalFlop', which is not a torchvision transform.* Did you mean 'RandomHorizontalFlip'",
        ),
        ([{"functional": {}}], "'functional', which is not a torchvision transform"),
        ([{"RandomHorizontalFlip": {"q": 0.5}}], "cannot create RandomHorizontalFlip with {'q': 0.5}"),
        ([{"ColorJitter": {"hue": 3}}], "cannot create ColorJitter"),
        ([{"RandomRotation": {"degrees": 9, "interpolation": "cubical"}}], "cannot create RandomRotation"),
        (["RandomHorizontalFlip"], "takes a list of {name: {setting: value}}, got 'RandomHorizontalFlip'"),
        (
            [{"Resize": {"size": 7}}],
            "makes torch.uint8 of shape (7, 7, 1); it must keep torch.uint8 and the size 48 x 48",
        ),
        ([{"ToDtype": {"dtype": "float32"}}], "augment"),
        ([{"Normalize": {"mean": [0.5], "std": [0.5]}}], "fails on a picture of shape (48, 48, 1)"),
    ],
)
def test_wrong_transforms_are_refused_with_what_is_wrong(augment: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("(", r"\(").replace(")", r"\)").replace("{", r"\{")):
        CNN(augment=augment)


def test_the_linear_features_are_the_pixels_of_a_thumbnail() -> None:
    values = [COLOUR, file_of(Image.fromarray(255 - COLOUR))]
    transformer = processor(48, 3).linear_features()
    found = transformer.fit_transform(values)
    assert (found.shape, found.dtype) == ((2, 16 * 16 * 3), np.float32)
    expected = np.stack([processor(16, 3)(value).numpy().ravel() / 255 for value in values])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert processor(48).linear_features().fit_transform(values).shape == (2, 16 * 16)


# the network


def test_items_are_collated_with_the_channels_first() -> None:
    reader = processor(channels=3)
    pixels = reader.collate([reader(COLOUR), reader(255 - COLOUR)])["pixels"]
    assert (pixels.shape, pixels.dtype) == ((2, 3, 6, 6), torch.uint8)
    np.testing.assert_array_equal(pixels[1].numpy(), 255 - COLOUR.transpose(2, 0, 1))


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


def test_a_long_thin_picture_needs_no_vast_ground() -> None:
    thin = Image.new("L", (30_000, 10), 0)
    asked: list[tuple[int, int]] = []
    new = Image.new

    def counted(mode: str, size: tuple[int, int], *more: Any) -> Image.Image:
        asked.append(size)
        return new(mode, size, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "new", counted)
        item = processor(48)(thin)
    assert max(width * height for width, height in asked) <= 48 * 48
    assert item.shape == (48, 48, 1)
    assert int(item[24].max()) == 0 or int(item[23].max()) == 0  # a line across the middle
    assert int(item[:20].min()) == 255
