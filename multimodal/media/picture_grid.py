"""Pictures of hits, drawn in rows as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from multimodal.core.errors import Unreadable

if TYPE_CHECKING:
    from PIL import Image, ImageFont

EDGE = 112  # pixels of the longer edge of a picture
MARGIN = 12  # pixels between two pictures
LINE = 16  # pixels from one line of text to the next
FONT_SIZE = 12
CELL = (EDGE + 2 * MARGIN, EDGE + MARGIN + 2 * LINE)
INK, FAINT = "#1f2328", "#656d76"  # of the captions and the scores


def thumbnail(data: bytes | None) -> Image.Image | None:
    """Return the picture in an image file, on white, as large as ``EDGE`` allows, or None if there is none to read.

    A smaller picture is enlarged by a whole number, so that its pixels remain equal squares.
    """
    from PIL import Image

    from multimodal.media.image import on_white, open_picture

    if data is None:
        return None
    try:
        picture = on_white(open_picture(data))
    except Unreadable:
        return None
    if (times := EDGE // max(picture.size)) > 1:
        return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    picture.thumbnail((EDGE, EDGE))
    return picture


def draw_grid(cells: Sequence[tuple[bytes | None, str, str]], columns: int) -> Image.Image:
    """Draw pictures in rows, each with two lines of text below it.

    Args:
        cells: image file, caption and score of each picture; a caption that is too long is cut.
        columns: pictures in a row, at least 1.
    """
    from PIL import Image, ImageDraw, ImageFont

    width, height = CELL
    rows = max(1, -(-len(cells) // columns))
    grid = Image.new("RGB", (width * min(columns, max(1, len(cells))), height * rows), "white")
    pen, font = ImageDraw.Draw(grid), ImageFont.load_default(FONT_SIZE)
    for number, (data, caption, score) in enumerate(cells):
        left, top = width * (number % columns), height * (number // columns)
        picture = thumbnail(data)
        if picture is not None:
            across, down = (EDGE - picture.width) // 2, (EDGE - picture.height) // 2
            grid.paste(picture, (left + MARGIN + across, top + MARGIN + down))
        middle, below = left + width // 2, top + MARGIN + EDGE + LINE // 2
        caption = _fit(" ".join(caption.split()), width - MARGIN, font)
        pen.text((middle, below), caption, fill=INK, font=font, anchor="mm")
        pen.text((middle, below + LINE), score, fill=FAINT, font=font, anchor="mm")
    return grid


def _fit(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Return as much of a text as a width in pixels holds."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"
