"""Values of rows as a page shows them: texts, small pictures, drawings and sounds, within a number of bytes."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
from PIL import Image

from multimodal.core.encoder import Processor
from multimodal.core.errors import MultimodalError, Unreadable
from multimodal.core.html_page import text
from multimodal.core.html_table import cell_text, shorten
from multimodal.data.samples import Samples
from multimodal.data.tables.file_cells import resolve_file_cell
from multimodal.media.audio import import_audio_library, is_recording, read_recording, resample
from multimodal.media.image import png_file, read_picture

EDGE = 96  # pixels of a picture's longer edge
MAX_TEXT = 300  # characters
MAX_CAPTION = 60  # characters of a drawing's source
MAX_SECONDS = 4.0  # of a sound
MAX_DRAWING = 2**15  # bytes of a drawing
SMALL_PNG = 2500  # bytes; a larger one is written as JPEG
MAX_BYTES = 4_000_000  # of all pictures, drawings and sounds of a page
RATES = (8000, 11025, 12000, 16000, 22050, 24000)  # of MP3, in Hz
OTHER_RATE = 16_000

Kind = Literal["text", "picture", "drawing", "sound", "unreadable", "left_out"]


@dataclass(frozen=True)
class Shown:
    """A value as a page shows it.

    Attributes:
        kind: how it is shown.
        text: the text, what a picture is called, or why the value cannot be shown.
        media: number of the picture, drawing or sound among those of the page; None: there is none.

    Examples:
        >>> Shown("picture", "cup.png", media=3).html()
        '<div class="value picture"><img data-media="3" alt="cup.png"></div>'
    """

    kind: Kind
    text: str
    media: int | None = None

    def html(self) -> str:
        """Return the value as HTML; the page's script puts the picture or sound in."""
        words = f'<span dir="auto">{text(self.text)}</span>'
        if self.media is None:
            return f'<div class="value {self.kind}">{words}</div>'
        if self.kind == "sound":
            audio = f'<audio controls preload="none" data-media="{self.media}" aria-label="{text(self.text)}"></audio>'
            return f'<div class="value sound">{audio}{words}</div>'
        caption = "" if self.kind == "picture" or not self.text else words
        name = text(self.text or self.kind)
        return f'<div class="value {self.kind}"><img data-media="{self.media}" alt="{name}">{caption}</div>'


class Values:
    """The values of a table's rows, as a page shows them. What cannot be read or does not fit is stated in its place.

    Args:
        samples: the table.
        processors: modality -> its processor.
        max_bytes: of all pictures, drawings and sounds.

    Attributes:
        urls: the pictures, drawings and sounds, as ``data:`` URLs.

    Examples:
        >>> from multimodal.core.registry import create
        >>> samples = Samples.of([{"title": "a <b>red</b> cup"}], {"text": "title"})
        >>> values = Values(samples, {"text": create("text", "bag").processor})
        >>> values.show(0, "text").html()
        '<div class="value text"><span dir="auto">a &lt;b&gt;red&lt;/b&gt; cup</span></div>'
    """

    def __init__(self, samples: Samples, processors: dict[str, Processor], max_bytes: int = MAX_BYTES) -> None:
        self.samples, self.processors, self._left = samples, processors, max_bytes
        self.urls: list[str] = []
        self._number_of: dict[str, int] = {}
        self._shown: dict[tuple[int, str], Shown] = {}

    def show(self, row: int, modality: str) -> Shown:
        """Return the value of a row.

        Args:
            row: row number.
            modality: the modality.
        """
        if (row, modality) not in self._shown:
            try:
                value = self.samples[row].values.get(modality)
                if value is None:
                    found = Shown("unreadable", f"row {row} has no {modality}")
                else:
                    found = self._show(value, self.processors[modality], self.samples.base)
            except Exception as error:  # of any reader, processor or codec: a page never fails because of a value
                found = Shown("unreadable", shorten(f"cannot be read: {_one_line(error)}", MAX_TEXT))
            self._shown[row, modality] = found
        return self._shown[row, modality]

    def show_value(self, value: Any, modality: str) -> Shown:
        """Return a value that is not in the table.

        Args:
            value: the value.
            modality: its modality.
        """
        try:
            return self._show(value, self.processors[modality], None)  # a path is one of the working folder
        except Exception as error:  # of any reader, processor or codec, as in ``show``
            return Shown("unreadable", shorten(f"cannot be read: {_one_line(error)}", MAX_TEXT))

    def allow(self, max_bytes: int) -> None:
        """Leave at most this many further bytes."""
        self._left = min(self._left, max_bytes)

    def _show(self, value: Any, processor: Processor, base: str | None) -> Shown:
        if processor.reads_files:
            value = resolve_file_cell(value, base)
        name = _one_line(value.name if isinstance(value, Path) else cell_text(value))
        drawing = processor.drawing(value)
        if drawing is not None and len(drawing) <= MAX_DRAWING:
            return self._with_media("drawing", name if isinstance(value, str) else "", _svg_url(drawing))
        if isinstance(value, str):
            return Shown("text", shorten(_one_line(value), MAX_TEXT))
        try:
            return self._with_media("picture", name if isinstance(value, Path) else "", _thumbnail(value))
        except Unreadable:
            pass
        if isinstance(value, Path | bytes) or (isinstance(value, tuple | list) and is_recording(value)):
            try:
                url, seconds = _sound(value)
                return self._with_media("sound", name if isinstance(value, Path) else f"{seconds:.1f} s", url)
            except MultimodalError:  # another kind of file, or no library for sounds
                pass
        return Shown("text", shorten(name, MAX_TEXT))

    def _with_media(self, kind: Kind, name: str, url: str) -> Shown:
        number = self._number_of.get(url)
        if number is None:
            if len(url) > self._left:
                return Shown(
                    "left_out", f"{shorten(name, MAX_CAPTION)} ({kind} left out, as the page is large)".strip()
                )
            self._left -= len(url)
            number = self._number_of[url] = len(self.urls)
            self.urls.append(url)
        return Shown(kind, shorten(name, MAX_CAPTION), number)


def _one_line(value: object) -> str:
    return " ".join(str(value).split())


def _url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _svg_url(drawing: str) -> str:
    """Return a drawing as a URL; in an ``img`` element, nothing in it is executed or fetched."""
    return "data:image/svg+xml," + quote(drawing, safe=" ='/:;,.-()!*&?@+")


def _thumbnail(value: Any) -> str:
    """Return a small picture on white as a URL, or raise ``Unreadable``."""
    picture = read_picture(value, "RGB", EDGE, "white")
    picture.thumbnail((EDGE, EDGE), Image.Resampling.LANCZOS)
    pixels = np.asarray(picture)
    if (pixels == pixels[..., :1]).all():
        picture = picture.convert("L")
    png = png_file(picture, optimize=True)
    if len(png) <= SMALL_PNG:
        return _url("image/png", png)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80, optimize=True)
    return min(_url("image/png", png), _url("image/jpeg", buffer.getvalue()), key=len)


def _sound(value: Any) -> tuple[str, float]:
    """Return the beginning of a sound as a URL, MP3 if it can be written, else WAV, and its length in seconds."""
    wave, rate = read_recording(value, OTHER_RATE, MAX_SECONDS)
    target = int(rate) if rate in RATES else OTHER_RATE
    samples = resample(wave, rate, target)
    soundfile = import_audio_library("soundfile")
    kind, name = ("mpeg", "MP3") if "MP3" in soundfile.available_formats() else ("wav", "WAV")
    buffer = io.BytesIO()
    soundfile.write(buffer, samples.clip(-1, 1), target, format=name)
    return _url(f"audio/{kind}", buffer.getvalue()), len(samples) / target
