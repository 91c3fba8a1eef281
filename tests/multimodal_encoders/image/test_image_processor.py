"""Pictures become squares, which have variants for training."""

from __future__ import annotations

import pickle
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from multimodal_encoders.image.cnn import CNN
from multimodal_encoders.image.image_processor import ImageProcessor, vary_lines
from PIL import Image
from scipy import ndimage
from square_pictures import assert_near, file_of, processor

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


@given(seed=st.integers(0, 2**32), pixels=st.floats(-2.5, 2.5), channels=st.sampled_from([1, 3]))
@settings(max_examples=40, deadline=None)
def test_lines_get_wider_and_narrower_by_grey_erosion_and_dilation(
    seed: int, pixels: float, channels: Literal[1, 3]
) -> None:
    shape = (12, 12) if channels == 1 else (12, 12, 3)
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    change = ndimage.grey_erosion if pixels > 0 else ndimage.grey_dilation
    square = (3, 3) if channels == 1 else (3, 3, 1)
    by_whole: list[Any] = [values]
    for _ in range(3):
        by_whole.append(change(by_whole[-1], size=square))
    whole, rest = int(abs(pixels)), abs(pixels) % 1
    expected = (1 - rest) * by_whole[whole].astype(float) + rest * by_whole[whole + 1]
    found = np.asarray(vary_lines(Image.fromarray(values), pixels)).astype(float)
    inside = slice(3, -3)  # Pillow leaves the frame of a picture as it is
    assert np.abs(found - expected)[inside, inside].max() <= 1


def test_lines_of_an_item_vary_up_to_the_setting() -> None:
    reader, rng = ImageProcessor(40, 1, stroke=0.8), np.random.default_rng(0)
    item = torch.full((40, 40, 1), 255, dtype=torch.uint8)
    item[10:30, 18:22] = 0  # a bar of 4 x 20
    areas = [(255 - reader.augment(item, rng).numpy().astype(float)).sum() / 255 for _ in range(60)]
    narrowest, widest = 80 - 0.8 * (80 - 2 * 18), 80 + 0.8 * (6 * 22 - 80)
    assert narrowest - 1 <= min(areas) < 50
    assert 115 < max(areas) <= widest + 1
    assert torch.equal(ImageProcessor(40, 1).augment(item, rng), item)


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


def test_items_are_collated_with_the_channels_first() -> None:
    reader = processor(channels=3)
    pixels = reader.collate([reader(COLOUR), reader(255 - COLOUR)])["pixels"]
    assert (pixels.shape, pixels.dtype) == ((2, 3, 6, 6), torch.uint8)
    np.testing.assert_array_equal(pixels[1].numpy(), 255 - COLOUR.transpose(2, 0, 1))


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
