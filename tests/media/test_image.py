"""Pictures in all forms become squares; invalid ones are rejected with a reason."""

from __future__ import annotations

import io
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from multimodal_encoders.image.cnn import CNN
from multimodal_encoders.image.image_processor import ImageProcessor
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from square_pictures import assert_near, file_of, luma, processor
from torch import nn

from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, Unreadable, UsageError
from multimodal.media import image
from multimodal.media.image import on_white, read_picture
from multimodal.prepare.near_pictures import fingerprint

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 6), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 6, 3), dtype=np.uint8)


# forms of pictures


def test_a_grey_picture_of_the_right_size_is_unchanged() -> None:
    item = processor()(GREY)
    assert (item.shape, item.dtype) == ((6, 6, 1), torch.uint8)
    np.testing.assert_array_equal(item.numpy()[..., 0], GREY)
    np.testing.assert_array_equal(processor(channels=3)(GREY).numpy(), np.stack([GREY] * 3, axis=-1))


def test_a_tensor_is_read_as_an_array() -> None:
    for pixels in (GREY, COLOUR, COLOUR[..., [0, 1, 2, 2]]):
        assert torch.equal(processor(channels=3)(torch.from_numpy(pixels)), processor(channels=3)(pixels))


def test_a_colour_picture_keeps_its_colours_or_becomes_its_luma() -> None:
    np.testing.assert_array_equal(processor(channels=3)(COLOUR).numpy(), COLOUR)
    assert_near(processor()(COLOUR), luma(COLOUR))


@given(rgba=arrays(np.uint8, (4, 4, 4)))
@settings(max_examples=25, deadline=None)
def test_transparent_pixels_show_a_white_background(rgba: np.ndarray) -> None:
    opacity = rgba[..., 3:].astype(np.float64) / 255
    expected = rgba[..., :3] * opacity + 255 * (1 - opacity)
    for value in (rgba, file_of(Image.fromarray(rgba))):
        assert_near(processor(4, channels=3)(value), expected)
        assert_near(processor(4)(value), luma(expected), steps=2)


def test_a_grey_picture_with_transparency_has_a_white_background_too() -> None:
    picture = Image.fromarray(np.array([[[0, 0], [0, 255]], [[100, 255], [0, 51]]], dtype=np.uint8), "LA")
    assert_near(processor(2)(file_of(picture)), np.array([[255, 0], [100, 204]]))


def test_a_palette_picture_has_the_colours_of_its_palette_and_their_transparency() -> None:
    picture = Image.new("P", (2, 2))
    picture.putpalette([10, 20, 30, 200, 100, 50, 0, 0, 0])
    picture.putdata([0, 1, 2, 1])
    colours = np.array([[[10, 20, 30], [200, 100, 50]], [[0, 0, 0], [200, 100, 50]]])
    assert_near(processor(2, channels=3)(file_of(picture)), colours, steps=0)
    colours[1, 0] = 255  # colour 2 is transparent
    for form in ("PNG", "GIF"):
        assert_near(processor(2, channels=3)(file_of(picture, form, transparency=2)), colours, steps=0)


def test_a_one_bit_picture_is_black_and_white() -> None:
    bits = GREY > 128
    for value in (bits, file_of(Image.fromarray(bits))):
        assert_near(processor()(value), np.where(bits, 255, 0), steps=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sixteen_bit_picture_keeps_its_greys(channels: Literal[1, 3]) -> None:
    deep = GREY.astype(np.uint16) * 257
    deep[0, :2] = [0, 65535]
    pgm = file_of(Image.fromarray(deep.astype(np.int32)), "PPM")
    assert Image.open(io.BytesIO(pgm)).mode == "I"  # of 16 bits in this format
    expected = np.stack([deep / 257] * 3, axis=-1) if channels == 3 else deep / 257
    for value in (deep, file_of(Image.fromarray(deep)), file_of(Image.fromarray(deep), "TIFF"), pgm):
        assert_near(processor(channels=channels)(value), expected)


def test_the_transparent_grey_of_a_sixteen_bit_picture_shows_the_background() -> None:
    deep = np.array([[1000, 1001], [257 * 100, 65535]], dtype=np.uint16)
    content = file_of(Image.fromarray(deep))
    chunk = b"tRNS" + (1000).to_bytes(2, "big")
    position = content.index(b"IDAT") - 4
    clear = len(chunk[4:]).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    assert_near(processor(2)(content[:position] + clear + content[position:]), np.array([[255, 3], [100, 255]]))


UPRIGHT: dict[int, Any] = {  # undo the eight orientations of EXIF (tag 274)
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda stored: np.rot90(stored, -1),  # a quarter turn clockwise
    7: lambda stored: np.rot90(stored, 2).T,
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_picture_is_turned_upright_by_its_exif_orientation(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    stored = GREY[:4]
    content = file_of(Image.fromarray(stored), exif=exif)
    (tmp_path / "picture.png").write_bytes(content)
    opened = Image.open(io.BytesIO(content))
    expected = processor()(np.ascontiguousarray(UPRIGHT[orientation](stored)))
    for value in (content, tmp_path / "picture.png", opened):
        assert torch.equal(processor()(value), expected)
    np.testing.assert_array_equal(np.asarray(opened), stored)  # the caller's picture is unchanged
    assert opened.getexif()[274] == orientation


@pytest.mark.parametrize(
    "exif",
    [
        pytest.param(b"Exif\0\0", id="empty"),
        pytest.param(b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x99\0\0\0\0\0\0\0", id="unknown"),
    ],
)
def test_a_picture_without_exif_orientation_is_unchanged(exif: bytes) -> None:
    np.testing.assert_array_equal(processor()(file_of(Image.fromarray(GREY), exif=exif)).numpy()[..., 0], GREY)


@pytest.mark.parametrize(
    "exif",
    [
        pytest.param(b"nonsense", id="no EXIF"),
        pytest.param(b"Exif\0\0II*\0", id="cut"),
    ],
)
def test_a_picture_with_damaged_exif_is_rejected(exif: bytes) -> None:
    with pytest.raises(Unreadable, match="bytes is not an image that can be read"):
        processor()(file_of(Image.fromarray(GREY), exif=exif))


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "RGBX"])
def test_other_colour_spaces_become_rgb(mode: str) -> None:
    smooth = np.full((6, 6, 3), [200, 90, 30], dtype=np.uint8)
    assert_near(processor(channels=3)(Image.fromarray(smooth).convert(mode)), smooth, steps=5)  # HSV has 256 hues


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(COLOUR, id="array"),
        pytest.param(Image.fromarray(COLOUR), id="PIL"),
        pytest.param(file_of(Image.fromarray(COLOUR)), id="bytes of PNG"),
        pytest.param(file_of(Image.fromarray(COLOUR), "BMP"), id="bytes of BMP"),
        pytest.param(file_of(Image.fromarray(COLOUR), "TIFF"), id="bytes of TIFF"),
        pytest.param(file_of(Image.fromarray(COLOUR), "WEBP", lossless=True), id="bytes of WebP"),
    ],
)
def test_a_picture_is_the_same_in_every_form(value: Any) -> None:
    np.testing.assert_array_equal(processor(channels=3)(value).numpy(), COLOUR)


def test_a_picture_may_be_a_path(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "picture.png")
    for path in (tmp_path / "picture.png", str(tmp_path / "picture.png")):
        np.testing.assert_array_equal(processor(channels=3)(path).numpy(), COLOUR)


# the square


@pytest.mark.parametrize(("height", "width"), [(4, 6), (6, 4), (5, 6), (6, 1)])
def test_a_non_square_picture_is_centred_on_white(height: int, width: int) -> None:
    expected = np.full((6, 6), 255)
    top, left = (6 - height) // 2, (6 - width) // 2
    expected[top : top + height, left : left + width] = GREY[:height, :width]
    assert_near(processor()(GREY[:height, :width]), expected, steps=0)


@given(data=st.data(), edge=st.integers(1, 40), size=st.integers(1, 24), channels=st.sampled_from([1, 3]))
@settings(max_examples=30, deadline=None)
def test_a_picture_is_resized_bilinearly_with_antialiasing(
    data: st.DataObject, edge: int, size: int, channels: Literal[1, 3]
) -> None:
    seed = data.draw(st.integers(0, 999))
    picture = np.random.default_rng(seed).integers(0, 256, (edge, edge, channels), dtype=np.uint8)
    planes = torch.from_numpy(picture).permute(2, 0, 1)[None].double()
    expected = nn.functional.interpolate(planes, size=(size, size), mode="bilinear", antialias=True)[0]
    item = processor(size, channels)(picture.squeeze(-1) if channels == 1 else picture)
    assert item.shape == (size, size, channels)
    assert_near(item, expected.permute(1, 2, 0).numpy().squeeze(), steps=1.51)  # Pillow rounds after each direction


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(300, 300), (400, 160), (64, 512)])
def test_a_large_jpeg_is_decoded_small_and_looks_the_same(
    channels: Literal[1, 3], height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    y, x = np.mgrid[:height, :width] / 40
    picture = Image.fromarray(
        np.stack([127 + 120 * np.sin(f + g) for f, g in [(x, 0), (y, 1), (x, y)]], -1).astype("u1")
    )
    content = file_of(picture, "JPEG", quality=95, subsampling=0)
    drafts = []
    draft = JpegImageFile.draft
    monkeypatch.setattr(JpegImageFile, "draft", lambda self, *arguments: drafts.append(draft(self, *arguments)))
    item = processor(24, channels)(content)
    assert len(drafts) == 1
    decoded = Image.open(io.BytesIO(content)).convert("L" if channels == 1 else "RGB")
    assert_near(item, processor(24, channels)(decoded).numpy().squeeze(), steps=6)
    assert len(drafts) == 1  # the caller's picture is unchanged


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (1, 30_000), (30_000, 1), (2, 65_000)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_thin_jpeg_is_read(size: tuple[int, int], mode: Literal["L", "RGB"]) -> None:
    content = file_of(Image.new("RGB", size, (200, 40, 40)), "JPEG")
    whole = np.asarray(Image.open(io.BytesIO(content)).convert(mode), np.int16)
    for edge in (1, 24, 224, None):
        read = np.asarray(read_picture(content, mode, edge, "white"), np.int16)
        assert min(read.shape[:2]) >= 1
        assert np.abs(read - whole[0, 0]).max() <= 2
    assert torch.isfinite(processor(24, 3)(content).float()).all()


# the background


@pytest.mark.parametrize(
    ("background", "colour"), [("black", (0, 0, 0)), ("#4080c0", (64, 128, 192)), ("gray", (128,) * 3)]
)
def test_the_background_has_the_chosen_colour(background: str, colour: tuple[int, int, int]) -> None:
    clear = np.zeros((2, 4, 4), dtype=np.uint8)
    expected = np.full((4, 4, 3), colour)
    for value in (clear, file_of(Image.fromarray(clear))):
        assert_near(ImageProcessor(4, 3, background=background)(value), expected, steps=0)
        assert_near(ImageProcessor(4, 1, background=background)(value), luma(expected))
    reader, rng = ImageProcessor(40, 3, 0.2, background), np.random.default_rng(0)
    shifted = torch.cat([reader.augment(torch.zeros(40, 40, 3, dtype=torch.uint8), rng) for _ in range(5)])
    assert {tuple(pixel) for pixel in shifted.reshape(-1, 3).tolist()} >= {colour}


@pytest.mark.parametrize("mode", ["La", "PA", "RGBa"])
def test_rare_modes_with_transparency_show_the_background_too(mode: str) -> None:
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    steps = {"La": ("LA", "La"), "PA": ("PA",), "RGBa": ("RGBa",)}[mode]
    for step in steps:
        clear = clear.convert(step)
    assert clear.mode == mode
    assert_near(processor(4, channels=3)(clear), np.full((4, 4, 3), 255), steps=0)


@pytest.mark.parametrize("background", ["whitish", "#12345678", ""])
def test_a_background_that_is_not_an_opaque_colour_is_rejected(background: str) -> None:
    with pytest.raises(UsageError, match=f"background '{background}' is not an opaque colour"):
        CNN(background=background)


# an array as the argument of encode


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("pixels", [GREY, COLOUR, COLOUR[..., [0, 1, 2, 2]].copy()])
def test_an_array_of_one_picture_gets_one_vector_and_one_of_several_gets_several(
    pixels: np.ndarray, kind: Callable[[np.ndarray], Any]
) -> None:
    embedder = Embedder({"image": CNN(size=16)}, dim=4)
    (expected,) = embedder.encode(image=[pixels])
    np.testing.assert_array_equal(embedder.encode(image=kind(pixels)), expected)
    if pixels.ndim == 3:
        several = embedder.encode(image=kind(np.stack([pixels] * 2)))
        np.testing.assert_allclose(several, np.stack([expected] * 2), atol=1e-6)


def test_an_array_with_channels_first_is_rejected() -> None:
    embedder = Embedder({"image": CNN(size=16)}, dim=4)
    with pytest.raises(MultimodalError, match=r"image: .*\(3, 8, 9\), type uint8; .* channels last"):
        embedder.encode(image=np.zeros((3, 8, 9), np.uint8))


# invalid pictures

ARRAYS = "give (h, w), (h, w, 3) or (h, w, 4) of uint8, channels last)"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "NoneType is not an image that can be read (give a path, bytes, a PIL image or an array)"),
        (3.5, "float is not an image that can be read (give a path, bytes, a PIL image or an array)"),
        (b"", "0 bytes is not an image that can be read"),
        (b"not a picture at all", "20 bytes is not an image that can be read"),
        (np.zeros((4, 4, 7), dtype=np.uint8), f"(shape (4, 4, 7), type uint8; {ARRAYS}"),
        (np.zeros((4, 4, 1), dtype=np.uint8), f"(shape (4, 4, 1), type uint8; {ARRAYS}"),
        (np.zeros((1, 4, 4, 3), dtype=np.uint8), f"(shape (1, 4, 4, 3), type uint8; {ARRAYS}"),
        (np.arange(4, dtype=np.uint8), f"(shape (4,), type uint8; {ARRAYS}"),
        (np.zeros((4, 4), dtype=np.int64), f"(shape (4, 4), type int64; {ARRAYS}"),
        (GREY.astype(np.int32) * 99, f"(shape (6, 6), type int32; {ARRAYS}"),
        (GREY.astype(np.float32) / 255, f"(shape (6, 6), type float32; {ARRAYS}"),
        *(
            pytest.param(np.zeros((4, 4, 3), dtype), f"(shape (4, 4, 3), type {dtype}; {ARRAYS}")
            for dtype in ("uint16", "bool")
        ),
        (np.zeros((3, 8, 9), dtype=np.uint8), f"(shape (3, 8, 9), type uint8; {ARRAYS}"),
        (torch.zeros(3, 8, 9), f"Tensor is not an image that can be read (shape (3, 8, 9), type float32; {ARRAYS}"),
        (np.zeros((0, 4), dtype=np.uint8), "ndarray is not an image that can be read"),
        (Image.new("RGB", (0, 0)), "Image is not an image that can be read (it has no pixels)"),
        (Image.fromarray(GREY.astype(np.float32) / 255), "the range of floating-point pixels is unknown"),
        (Image.fromarray(GREY.astype(np.int32)), "the range of 32-bit pixels is unknown; give uint8 or uint16"),
    ],
)
def test_invalid_pictures_are_rejected(value: Any, message: str) -> None:
    with pytest.raises(Unreadable) as error:
        processor()(value)
    assert message in str(error.value)
    assert error.value.reason == "not an image"


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(lambda: Image.new("LAB", (4, 4)), id="a colour space that Pillow does not convert"),
        pytest.param(lambda: Image.open(io.BytesIO(file_of(Image.effect_noise((60, 60), 50))[:999])), id="opened, cut"),
    ],
)
def test_a_picture_object_that_cannot_be_read_is_rejected(value: Any) -> None:
    with pytest.raises(Unreadable, match="is not an image that can be read"):
        processor()(value())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"the picture .*/none\.png does not exist") as error:
        processor()(tmp_path / "none.png")
    assert error.value.reason == "missing file"
    assert processor().reads_files


def test_a_file_that_is_not_a_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("a note")
    with pytest.raises(Unreadable, match=rf"{tmp_path / 'notes.png'} is not an image that can be read"):
        processor()(str(tmp_path / "notes.png"))


def test_a_folder_and_an_address_are_not_pictures(tmp_path: Path) -> None:
    for value, reason in (
        (tmp_path, "folder"),
        ("https://host/cup.png", "address"),
        (Path("file:///cup.png"), "address"),
    ):
        for form in (value, str(value)):
            with pytest.raises(Unreadable, match=rf"{str(value)[-7:]} is an? {reason}") as error:
                processor()(form)
            assert error.value.reason == reason


@pytest.mark.parametrize("form", ["PNG", "BMP", "JPEG", "GIF", "TIFF", "WEBP"])
def test_a_file_cut_anywhere_is_rejected(form: str) -> None:
    content = file_of(Image.fromarray(RNG.integers(0, 256, (30, 30, 3), dtype=np.uint8)), form)
    reasons = []
    for length in range(0, len(content) - 20, 97):
        with pytest.raises(Unreadable, match="is not an image that can be read") as error:
            processor()(content[:length])
        reasons.append(error.value.reason)
    assert reasons[0] == "not an image"  # no bytes at all
    assert set(reasons) <= {"not an image", "truncated picture"}
    if form in ("PNG", "BMP", "JPEG"):
        assert reasons[len(reasons) // 2 :] == ["truncated picture"] * (len(reasons) - len(reasons) // 2)


@given(seed=st.integers(0, 2**32), form=st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"]))
@settings(max_examples=20, deadline=None)
def test_a_damaged_file_is_read_or_rejected(seed: int, form: str) -> None:
    rng = np.random.default_rng(seed)
    content = np.frombuffer(file_of(Image.fromarray(GREY), form), dtype=np.uint8).copy()
    content[rng.integers(0, len(content), 3)] = rng.integers(0, 256, 3)
    with suppress(Unreadable):
        assert processor()(content.tobytes()).shape == (6, 6, 1)


def test_a_decompression_bomb_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = file_of(Image.new("1", (50, 50)))
    for limit in (1000, 2000):  # Pillow warns above the limit and raises an error above twice the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(Unreadable, match="decompression bomb") as error:
            processor()(bomb)
        assert error.value.reason == "decompression bomb"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2500)
    assert_near(processor()(bomb), np.zeros((6, 6)), steps=0)


# large pictures


def _large_pictures() -> dict[str, Image.Image]:
    colours = Image.fromarray(RNG.integers(0, 256, (37, 23, 4), dtype=np.uint8))
    greys = Image.fromarray(RNG.integers(0, 65536, (37, 23), dtype=np.uint16))
    marked = Image.fromarray(RNG.integers(0, 256, (37, 23), dtype=np.uint8))
    marked.info["transparency"] = 7
    return {
        "RGBA": colours,
        "LA": colours.convert("LA"),
        "P": colours.convert("RGB").quantize(16),
        "1": colours.convert("1"),
        "I;16": greys,
        "transparent grey": marked,
        "CMYK": colours.convert("CMYK"),
    }


@pytest.mark.parametrize("kind", list(_large_pictures()))
def test_a_picture_converted_in_strips_is_that_converted_at_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = _large_pictures()[kind]

    def results() -> list[np.ndarray]:
        read = [read_picture(picture, mode, None, "red") for mode in ("L", "RGB")]
        return [np.asarray(each) for each in (*read, on_white(picture))]

    at_once = results()
    monkeypatch.setattr(image, "STRIP_PIXELS", 100)
    assert len(list(image.strips(picture))) > 5
    for one, other in zip(at_once, results(), strict=True):
        np.testing.assert_array_equal(one, other)
    monkeypatch.undo()
    buffer = io.BytesIO()
    picture.save(buffer, "TIFF" if kind == "CMYK" else "PNG")
    digest = fingerprint(buffer.getvalue()).digest
    monkeypatch.setattr(image, "STRIP_PIXELS", 100)
    assert fingerprint(buffer.getvalue()).digest == digest


@pytest.mark.parametrize("mode", ["1", "L", "RGBA", "I;16"])
def test_the_largest_pictures_take_less_than_ten_bytes_a_pixel(mode: str, tmp_path: Path) -> None:
    program = """
import io, resource, sys
from PIL import Image
from multimodal.prepare.near_pictures import fingerprint
from multimodal.media.image import read_picture
from pathlib import Path
data = Path(sys.argv[1]).read_bytes()
fingerprint(Path(sys.argv[2]).read_bytes())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
fingerprint(data)
read_picture(data, "RGB", None, "white")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
    edge = 6000
    for name, size in (("large", edge), ("small", 50)):
        Image.new(mode, (size, size)).save(tmp_path / f"{name}.png")
    paths = [str(tmp_path / f"{name}.png") for name in ("large", "small")]
    done = subprocess.run([sys.executable, "-c", program, *paths], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 10 * edge**2
