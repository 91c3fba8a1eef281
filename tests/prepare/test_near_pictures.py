"""Pictures are decoded completely and compared as people see them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from multimodal.core import registry
from multimodal.core.errors import Unreadable
from multimodal.media.image import on_white, open_picture
from multimodal.prepare.near_pictures import Fingerprint, fingerprint


def distance(a: bytes, b: bytes) -> tuple[int, float]:
    one, other = fingerprint(a).look, fingerprint(b).look
    assert one is not None
    assert other is not None
    return (one.phash ^ other.phash).bit_count(), float(np.abs(one.colours.astype(int) - other.colours).mean())


def test_equal_pixels_in_other_files_have_one_digest(pictures: Any) -> None:
    picture = pictures.blobs(0)
    bitmap = io.BytesIO()
    picture.save(bitmap, "BMP")
    assert fingerprint(pictures.png(picture)).digest == fingerprint(bitmap.getvalue()).digest
    assert fingerprint(pictures.png(picture)).digest != fingerprint(pictures.jpeg(picture)).digest
    assert fingerprint(pictures.png(picture), look=False) == Fingerprint(fingerprint(bitmap.getvalue()).digest, None)
    assert fingerprint(pictures.png(picture)).digest != fingerprint(pictures.png(picture.resize((32, 128)))).digest


def test_animations_that_begin_alike_are_different(pictures: Any) -> None:
    def gif(*seeds: int) -> bytes:
        file = io.BytesIO()
        first, *others = (pictures.blobs(seed) for seed in seeds)
        first.save(file, "GIF", save_all=True, append_images=others)
        return file.getvalue()

    assert fingerprint(gif(0, 1)).digest != fingerprint(gif(0, 2)).digest


def test_a_compressed_scaled_or_brighter_copy_is_near_and_another_picture_is_not(pictures: Any) -> None:
    near, far = [], []
    for seed in range(40):
        picture = pictures.blobs(seed)
        original = pictures.png(picture)
        brighter = picture.point(lambda v: min(255, v * 1.04))
        copies = pictures.jpeg(picture), pictures.png(picture.resize((40, 40))), pictures.png(brighter)
        near += [bits <= 4 and colours <= 12 for bits, colours in (distance(original, copy) for copy in copies)]
        far.append(distance(original, pictures.png(pictures.blobs(seed + 1)))[0])
    assert np.mean(near) > 0.95
    assert min(far) > 10


def test_a_rotated_picture_is_compared_upright(pictures: Any) -> None:
    picture = pictures.blobs(0, 64).crop((0, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by 270 degrees
    file = io.BytesIO()
    picture.save(file, "PNG", exif=exif)
    assert open_picture(file.getvalue()).size == (32, 64)


def test_transparency_is_white_and_other_modes_are_converted() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert on_white(clear).getpixel((0, 0)) == (255, 255, 255)
    ramp = Image.fromarray(np.linspace(0, 60000, 16).reshape(4, 4).astype(np.uint16))
    assert np.asarray(on_white(ramp))[..., 0].max() == 255
    for mode in ("1", "L", "LA", "P", "CMYK", "I", "YCbCr"):
        assert on_white(Image.new(mode, (4, 4))).mode == "RGB"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("cut", "truncated picture"),
        ("text", "not an image"),
        ("flipped", "truncated picture"),
        ("bomb", "decompression bomb"),
        ("float", "not an image"),
    ],
)
def test_a_broken_picture_is_rejected_as_in_training(
    pictures: Any, damage: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, floats = pictures.png(pictures.blobs(0)), io.BytesIO()
    Image.new("F", (64, 64)).save(floats, "TIFF")
    broken = {"cut": whole[:500], "text": b"no picture", "flipped": whole[:200] + b"????" + whole[204:], "bomb": whole}
    broken["float"] = floats.getvalue()
    if damage == "bomb":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 - 1)
    processor: Any = registry.create("image", "cnn").processor
    for read in (fingerprint, processor):
        with pytest.raises(Unreadable) as caught:
            read(broken[damage])
        assert caught.value.reason == reason
        assert "0x" not in str(caught.value)
