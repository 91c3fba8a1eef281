"""What pictures of pretrained encoders go through, whatever the library."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from multimodal_encoders.image.pretrained_preprocessing import Normalize, PretrainedImageProcessor
from PIL import Image
from small_clips import colours, file_of

from multimodal.core.errors import Unreadable


def processor(*augment: dict[str, dict[str, float]]) -> PretrainedImageProcessor:
    return PretrainedImageProcessor("some", {"a": 1}, lambda picture: picture.resize((6, 4)), (4, 6), "red", augment)


def test_pictures_are_bytes_with_the_channels_last_in_memory() -> None:
    reader = processor()
    items = [reader(colours(9, 12)), reader(Image.new("L", (5, 5), 7))]
    assert all((item.shape, item.dtype) == ((4, 6, 3), torch.uint8) for item in items)
    pixels = reader.collate(items)["pixels"]
    assert pixels.shape == (2, 3, 4, 6)
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    assert pixels[1].unique().tolist() == [7]


def test_what_is_transparent_lies_on_the_ground() -> None:
    item = processor()(Image.new("RGBA", (3, 3), (0, 0, 0, 0)))
    assert item[0, 0].tolist() == [255, 0, 0]


def test_a_large_jpeg_is_decoded_in_full() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8))
    data = file_of(picture, "JPEG")
    expected = np.asarray(processor()._fit(Image.open(io.BytesIO(data)).convert("RGB")))
    np.testing.assert_array_equal(processor()(data).numpy(), expected)


def test_variants_are_drawn_for_training() -> None:
    reader = processor({"RandomHorizontalFlip": {"p": 1.0}})
    item = reader(colours(9, 12))
    assert torch.equal(reader.augment(item, np.random.default_rng(0)), item.flip(1))
    assert torch.equal(processor().augment(item, np.random.default_rng(0)), item)


def test_examples_differ_in_size_and_the_baseline_has_features() -> None:
    reader = processor()
    examples = reader.examples()
    assert len({example.shape for example in examples}) > 1
    assert reader.linear_features().fit_transform(examples).shape == (len(examples), 3 * 16 * 16)


def test_an_array_with_two_or_three_dimensions_is_one_picture() -> None:
    found = [processor().is_one_value(np.zeros((4, 4, 3, 3)[:n], np.uint8)) for n in range(1, 5)]
    assert found == [False, True, True, False]


def test_what_is_not_a_picture_is_refused() -> None:
    with pytest.raises(Unreadable) as caught:
        processor()(b"not an image")
    assert caught.value.reason == "not an image"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_normalisation_is_computed_in_float32(dtype: torch.dtype) -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    before = pixels.clone()
    found = Normalize([0.1, 0.2, 0.3], [0.5, 0.6, 0.7])(pixels, dtype)
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in ([0.1, 0.2, 0.3], [0.5, 0.6, 0.7]))
    expected = (pixels.double() / 255 - mean) / std
    torch.testing.assert_close(found, expected.to(dtype), atol=1e-6 if dtype == torch.float32 else 0, rtol=1e-2)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(pixels, before)
