"""Values of rows on a page: texts, pictures, drawings and sounds; what cannot be read is stated."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from html_pages import EVIL, Page
from PIL import Image

from multimodal.core.encoder import Processor
from multimodal.core.registry import create
from multimodal.data.samples import Samples
from multimodal.data.shown_values import MAX_TEXT, Shown, Values


class Anything(Processor):
    """Reads values of any kind, and files."""

    reads_files = True

    def __call__(self, value: Any) -> Any:
        return value

    def collate(self, items: Any) -> dict[str, torch.Tensor]:
        return {}


class Broken(Anything):
    def drawing(self, value: Any) -> str | None:
        raise RuntimeError(EVIL)


class Hostile(Anything):
    def drawing(self, value: Any) -> str | None:
        return f"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'>{EVIL}</svg>"


def show(value: Any, processor: Processor, max_bytes: int = 10**6) -> tuple[Shown, Values]:
    values = Values(Samples.of([{"v": value}], {"m": "v"}), {"m": processor}, max_bytes)
    return values.show(0, "m"), values


def text_processor() -> Processor:
    return create("text", "bag").processor


def png(size: tuple[int, int], mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 4), dtype=np.uint8)
    Image.fromarray(noise, "RGBA").convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def test_long_and_hostile_texts_are_cut_and_escaped() -> None:
    shown, values = show(EVIL + "\x00 \n" + "x" * 1000, text_processor())
    assert (shown.kind, len(shown.text), values.urls) == ("text", MAX_TEXT, [])
    page = Page(shown.html())
    assert page.tags == {"div", "span"}
    assert "<script>alert('x')</script>" in page.text
    assert "\x00" not in page.text


@pytest.mark.parametrize("size", [(300, 200), (20, 10), (1, 1)])
def test_pictures_are_small_and_of_one_shape(size: tuple[int, int]) -> None:
    shown, values = show(png(size), Anything())
    assert (shown.kind, shown.media) == ("picture", 0)
    picture = Image.open(io.BytesIO(base64.b64decode(values.urls[0].partition(",")[2])))
    assert max(picture.size) <= 96
    assert picture.width / picture.height == pytest.approx(size[0] / size[1], rel=0.05)


def test_a_file_is_read_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a <b> &c.png").write_bytes(png((8, 8)))
    shown, _ = show("a <b> &c.png", Anything())
    assert (shown.kind, shown.text) == ("picture", "a <b> &c.png")
    assert ("alt", "a <b> &c.png") in Page(shown.html()).attributes


def test_a_file_that_is_gone_or_damaged_is_stated(tmp_path: Path) -> None:
    shown, _ = show("gone.png", Anything())
    assert (shown.kind, shown.media) == ("unreadable", None)
    assert "gone.png does not exist" in shown.text
    shown, _ = show(png((64, 64))[:300], Anything())
    assert (shown.kind, shown.text) == ("text", "300 bytes")
    shown, _ = show("a", Broken())
    assert shown.kind == "unreadable"
    shown, _ = show(b"x", Broken())
    assert (shown.kind, Page(shown.html()).tags) == ("unreadable", {"div", "span"})


def test_a_missing_value_is_stated() -> None:
    values = Values(Samples.of([{"v": None}, {"v": "a"}], {"m": "v"}), {"m": text_processor()})
    assert values.show(0, "m") == Shown("unreadable", "row 0 has no m")


def test_drawings_are_pictures_in_which_nothing_runs() -> None:
    shown, values = show(b"abc", Hostile())
    assert shown.kind == "drawing"
    assert unquote(values.urls[0]) == "data:image/svg+xml," + str(Hostile().drawing(None))
    assert not {"<", ">", '"'} & set(values.urls[0])
    assert Page(shown.html()).tags == {"div", "img"}


def test_sounds_are_shortened() -> None:
    soundfile = pytest.importorskip("soundfile", reason="the extra audio is not installed")
    wave = io.BytesIO()
    soundfile.write(wave, np.sin(np.arange(16_000 * 9) / 9), 16_000, format="WAV")
    shown, values = show(wave.getvalue(), Anything())
    assert (shown.kind, shown.text) == ("sound", "4.0 s")
    data = base64.b64decode(values.urls[0].partition(",")[2])
    assert len(data) < len(wave.getvalue()) / 10
    decoded, rate = soundfile.read(io.BytesIO(data))
    assert (len(decoded) / rate, rate) == (pytest.approx(4, abs=0.1), 16_000)


def test_arrays_of_numbers_are_described() -> None:
    for value in ([0.5, 0.25], {"x": [[1.0]]}):
        shown, values = show(value, Anything())
        assert (shown.kind, values.urls) == ("text", [])


def test_equal_pictures_are_stored_once_and_a_full_page_says_so() -> None:
    rows = [{"v": png((90, 90))}, {"v": png((90, 90))}, {"v": png((50, 50))}]
    values = Values(Samples.of(rows, {"m": "v"}), {"m": Anything()})
    assert [values.show(row, "m").media for row in range(3)] == [0, 0, 1]
    values = Values(Samples.of(rows, {"m": "v"}), {"m": Anything()}, max_bytes=len(values.urls[0]))
    assert [values.show(row, "m").kind for row in range(3)] == ["picture", "picture", "left_out"]
    assert "left out" in values.show(2, "m").html()
