"""A sample of coloured pictographs with names and keywords, drawn with matplotlib's DejaVu Sans.

A row is one drawing of one pictograph: emoji, playing cards, dominoes, chess pieces and other symbols. Its columns:

- ``id``: ``"U+2660-0"``, the code point and the number of the drawing;
- ``image``: the bytes of a PNG file of 72 x 72 pixels, the symbol in one colour on a background of another colour;
- ``name``: ``"black spade suit in red on white"``: the Unicode name and the colours;
- ``keywords``: ``"spade, red, suit, white ground"``: the words of the name in any order;
- ``split``: ``validation`` for one drawing each of a tenth of the symbols, ``train`` for the drawings of all others.
"""

from __future__ import annotations

import io
import unicodedata
from pathlib import Path

import numpy as np

from multimodal.datasets.in_memory import InMemoryTable

BLOCKS = ((0x2600, 0x27BF), (0x1F030, 0x1F0FF), (0x1F300, 0x1F64F))  # symbols, dominoes and cards, pictographs
INKS = {
    "red": (200, 30, 40),
    "orange": (240, 130, 20),
    "green": (30, 140, 60),
    "blue": (40, 80, 200),
    "purple": (130, 50, 160),
    "black": (20, 20, 20),
}
GROUNDS = {"white": (255, 255, 255), "yellow": (255, 235, 130), "pink": (255, 205, 215), "cyan": (190, 240, 245)}
SIZE = 72
DRAWINGS = 4  # of each symbol
STOP_WORDS = {"and", "in", "of", "on", "the", "with", "sign", "symbol", "black", "white", "heavy"}  # not keywords


def sample_emoji() -> InMemoryTable:
    """Generate the table: about 590 symbols, each drawn four times in different colours."""
    from fontTools.ttLib import TTFont

    font = _font_file()
    with TTFont(font) as tables:
        drawn = tables.getBestCmap() or {}
    symbols = [code for low, high in BLOCKS for code in range(low, high + 1) if code in drawn]
    symbols = [code for code in symbols if unicodedata.name(chr(code), "")]
    rng = np.random.default_rng(0)
    held_out = set(rng.choice(symbols, len(symbols) // 10, replace=False).tolist())
    rows = []
    for code in symbols:
        colours = rng.choice(len(INKS) * len(GROUNDS), DRAWINGS, replace=False).tolist()
        for number, colour in enumerate(colours[:1] if code in held_out else colours):
            ink, ground = list(INKS)[colour % len(INKS)], list(GROUNDS)[colour // len(INKS)]
            name = unicodedata.name(chr(code)).lower()
            words = [*(word for word in name.split() if word not in STOP_WORDS), ink, f"{ground} ground"]
            rows.append(
                {
                    "id": f"U+{code:04X}-{number}",
                    "image": draw(font, chr(code), INKS[ink], GROUNDS[ground]),
                    "name": f"{name} in {ink} on {ground}",
                    "keywords": ", ".join(rng.permutation(words)),
                    "split": "validation" if code in held_out else "train",
                }
            )
    return InMemoryTable("sample:emoji", rows, ("name", "keywords", "split"))


def draw(font: Path, symbol: str, ink: tuple[int, int, int], ground: tuple[int, int, int]) -> bytes:
    """Draw a symbol in the middle of an image, as large as possible.

    Args:
        font: a TrueType file.
        symbol: one character that the font contains.
        ink: red, green and blue of the symbol, from 0 to 255.
        ground: red, green and blue of the background, from 0 to 255.

    Returns:
        The bytes of a PNG file of 72 x 72 pixels.
    """
    from PIL import Image, ImageDraw, ImageFont

    basic = ImageFont.Layout.BASIC
    left, top, right, bottom = ImageFont.truetype(str(font), SIZE, layout_engine=basic).getbbox(symbol)
    size = int(SIZE * (SIZE - 6) / max(right - left, bottom - top))
    face = ImageFont.truetype(str(font), size, layout_engine=basic)
    left, top, right, bottom = face.getbbox(symbol)
    picture = Image.new("RGB", (SIZE, SIZE), ground)
    ImageDraw.Draw(picture).text(((SIZE - left - right) / 2, (SIZE - top - bottom) / 2), symbol, fill=ink, font=face)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _font_file() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
