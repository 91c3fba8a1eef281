"""Variants of pictures are changed within bounds, and say how."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from multimodal.core.errors import Unreadable
from multimodal.prepare.cleaning import File
from multimodal.prepare.synthesize.pictures import CHANGES, MAX_DEGREES, MAX_SCALE, PictureVariants, edge_colour, vary


def disc(edge: int = 64, background: Any = "white", mode: str = "RGB") -> Image.Image:
    picture = Image.new(mode, (edge, edge), background)
    ImageDraw.Draw(picture).rectangle((edge // 4, edge // 3, edge // 2, edge // 2), fill=(10, 20, 30))
    return picture


def centre_of_mass(picture: Image.Image) -> np.ndarray:
    dark = np.asarray(picture.convert("L")) < 128
    return np.argwhere(dark).mean(axis=0)[::-1]


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_alone_changes_the_picture_and_keeps_its_size(change: str) -> None:
    original = disc()
    for seed in range(5):
        variant, said = vary(original, [change], np.random.default_rng(seed))
        assert variant.size == original.size
        assert variant.tobytes() != original.tobytes()
        word = {"rotation": "rotated", "scale": "scaled", "shift": "shifted", "stroke": "thi"}.get(change, change)
        assert said.startswith(word)
        assert "," not in said


def test_a_shift_is_as_far_as_it_says() -> None:
    for seed in range(20):
        variant, said = vary(disc(), ["shift"], np.random.default_rng(seed))
        across, down = map(int, re.findall(r"-?\d+", said))
        moved = centre_of_mass(variant) - centre_of_mass(disc())
        assert moved == pytest.approx([across, down], abs=1.0)
        assert max(abs(across), abs(down)) <= 0.08 * 64 + 0.5


def test_a_scale_changes_areas_by_its_square_within_bounds() -> None:
    for seed in range(20):
        variant, said = vary(disc(), ["scale"], np.random.default_rng(seed))
        scale = float(said.removeprefix("scaled "))
        assert 1 / MAX_SCALE - 0.01 <= scale <= MAX_SCALE + 0.01
        before, after = ((np.asarray(p.convert("L")) < 128).sum() for p in (disc(), variant))
        assert after / before == pytest.approx(scale**2, rel=0.15)


def test_a_rotation_agrees_with_pillow_s() -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        variant, said = vary(disc(), ["rotation"], rng)
        degrees = int(said.removeprefix("rotated "))
        assert abs(degrees) <= MAX_DEGREES
        expected = disc().rotate(degrees, Image.Resampling.BICUBIC, fillcolor="white")
        assert np.abs(centre_of_mass(variant) - centre_of_mass(expected)).max() < 1


def test_strokes_get_thicker_or_thinner_on_light_and_dark_backgrounds() -> None:
    for background, drawn in (("white", "black"), ("black", "white")):
        picture = Image.new("RGB", (40, 40), background)
        ImageDraw.Draw(picture).line((20, 5, 20, 35), fill=drawn, width=3)
        count = (np.asarray(picture) != np.asarray(Image.new("RGB", (40, 40), background))).any(axis=2).sum()
        for seed in range(6):
            variant, said = vary(picture, ["stroke"], np.random.default_rng(seed))
            changed = (
                (np.asarray(variant.convert("RGB")) != np.asarray(Image.new("RGB", (40, 40), background))).any(2).sum()
            )
            assert (changed > count) == (said == "thicker")


def test_a_background_is_replaced_where_it_is_plain_only(pictures: Any) -> None:
    variant, said = vary(disc(background=(250, 250, 250)), ["background"], np.random.default_rng(0))
    colour = tuple(int(said[-6:][n : n + 2], 16) for n in (0, 2, 4))
    assert variant.getpixel((0, 0)) == colour
    assert variant.getpixel((20, 25)) == (10, 20, 30)
    photo = pictures.blobs(0)
    unchanged, said = vary(photo, ["background"], np.random.default_rng(0))
    assert (unchanged.tobytes(), said) == (photo.tobytes(), "same")


def test_transparent_pictures_become_white_behind_and_large_ones_smaller(pictures: Any) -> None:
    clear = Image.new("RGBA", (1500, 30), (0, 0, 0, 0))
    made = PictureVariants("p", ["shift"], count=2).make(
        {"p": File(pictures.png(clear), "a/b.png")}, np.random.default_rng(0)
    )
    assert [one.value.name for one in made] == ["b-made-1.png", "b-made-2.png"]
    opened = Image.open(io.BytesIO(made[0].value.data))
    assert opened.size[0] == 1024
    assert edge_colour(np.asarray(opened.convert("RGB"))).tolist() == [255, 255, 255]


def test_a_grey_picture_is_kept_grey(pictures: Any) -> None:
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20), dtype=np.uint8))
    made = PictureVariants("p", ["rotation"]).make({"p": File(pictures.png(grey), "")}, np.random.default_rng(0))
    assert Image.open(io.BytesIO(made[0].value.data)).mode == "L"
    assert made[0].value.name == "picture-made-1.png"


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (1, 50), (2, 2)])
def test_tiny_pictures_are_drawn_too(size: tuple[int, int], pictures: Any) -> None:
    cell = File(pictures.png(Image.new("RGB", size, "red")), "x.png")
    assert len(PictureVariants("p").make({"p": cell}, np.random.default_rng(0))) == 1


def test_what_is_not_a_picture_cannot_be_read() -> None:
    with pytest.raises(Unreadable):
        PictureVariants("p").make({"p": File(b"not a picture", "x.png")}, np.random.default_rng(0))
    assert PictureVariants("p").make({}, np.random.default_rng(0)) == []
