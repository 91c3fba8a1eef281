"""The rows of a small index that is served in tests, and values to search it with."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image

TOKEN = "a-token-of-the-tests"
COLOURS = {"red": (255, 0, 0), "green": (0, 160, 0), "blue": (0, 0, 255)}
THINGS = ("cup", "jug", "pot", "bowl")
GRAPH = {"nodes": [{"id": 0, "x": [0.0, 1.0]}, {"id": 1, "x": [1.0, 0.0]}], "links": [{"source": 0, "target": 1}]}


def picture(colour: tuple[int, int, int], size: int = 24) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    drawn = Image.new("RGB", (size, size), "white")
    drawn.paste(colour, (size // 4, size // 4, size // 2, size // 2))
    drawn.save(buffer, "PNG")
    return buffer.getvalue()


def data_url(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def table() -> list[dict[str, Any]]:
    return [
        {
            "sku": f"{colour}/{thing}",
            "name": f"a {colour} {thing}",
            "picture": picture(rgb, 24 + number),  # equal ones could be found in any order
            "row": {"colour": colour, "price": float(number)},
            "graph": GRAPH,
            "colour": colour,
            "price": number,
        }
        for colour, rgb in COLOURS.items()
        for number, thing in enumerate(THINGS)
    ]


COLUMNS = {"text": "name", "image": "picture", "tabular": "row", "graph": "graph"}
