"""Glyphs: every character of matplotlib's fonts as an image, as an outline and by its Unicode name.

The table is built from installed files: the DejaVu Sans, Sans Mono, Serif and STIXGeneral faces that matplotlib ships,
and Python's ``unicodedata``. A row is one drawing of one character in one face. Its columns:

- ``key``: ``"DejaVuSans/U+03A9"``; ``character``: ``"Ω"``; ``font``: ``"DejaVuSans"``;
- ``name``: the Unicode name, ``"GREEK CAPITAL LETTER OMEGA"``;
- ``image``: ``(48, 48)`` uint8, black (0) on white (255), with the baseline at a fixed height;
- ``outline``: a PyG ``Data`` of the contour points, see ``outline_graph``;
- ``split``: see ``assign_splits``.
"""

from __future__ import annotations

import json
import unicodedata
from functools import cache, cached_property
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

from multimodal.core.files import atomic_folder, default_cache
from multimodal.core.library_warnings import ignore_import_warnings
from multimodal.core.progress import progress
from multimodal.core.table import Table

if TYPE_CHECKING:
    from torch_geometric.data import Data

# In order of preference for the one drawing of a character in an evaluation split.
FONTS = tuple(
    family + style
    for family, styles in (
        ("DejaVuSans", ("", "-Bold", "-Oblique", "-BoldOblique")),
        ("DejaVuSansMono", ("", "-Bold", "-Oblique", "-BoldOblique")),
        ("STIXGeneral", ("", "Bol", "Italic", "BolIta")),
        ("DejaVuSerif", ("", "-Bold", "-Italic", "-BoldItalic")),
    )
    for style in styles
)
UNSEEN_FAMILY = "DejaVuSerif"
SIZE = 48
EM_PIXELS = 36  # size of an em
BASELINE = 36  # pixels from the top
FORMAT = 1  # increase it when the cached arrays change, so that the cache is built again


class Glyphs(Table):
    """The table of glyphs: about 54,000 rows in about 7,300 groups (the characters).

    The table is built when it is first opened, and then memory-mapped from the cache.

    Args:
        cache: folder of the cache; None: the default.

    Examples:
        >>> Glyphs.columns, Glyphs.metadata_columns
        (('key', 'character', 'name', 'font', 'split', 'image', 'outline'), ('name', 'character', 'font', 'split'))
    """

    name = "glyphs"
    columns = ("key", "character", "name", "font", "split", "image", "outline")
    metadata_columns = ("name", "character", "font", "split")

    def __init__(self, cache: Path | None = None) -> None:
        self._cache = cache
        folder = build_or_open_cache(cache or default_cache())
        self._images = np.load(folder / "images.npy", mmap_mode="r")
        self._points = np.load(folder / "points.npy", mmap_mode="r")
        self._flags = np.load(folder / "flags.npy", mmap_mode="r")
        self._offsets = np.load(folder / "offsets.npy")
        self._codepoints = np.load(folder / "codepoints.npy")
        self._fonts = np.load(folder / "fonts.npy")

    def __reduce__(self) -> tuple[type[Glyphs], tuple[Path | None]]:
        return Glyphs, (self._cache,)  # a data worker maps the files itself

    def __len__(self) -> int:
        return len(self._codepoints)

    def value(self, row: int, column: str) -> Any:
        """Return one cell; raises ``KeyError`` for an unknown column."""
        if column == "image":
            return np.array(self._images[row])
        if column == "outline":
            points = slice(self._offsets[row], self._offsets[row + 1])
            return outline_graph(np.array(self._points[points]), np.array(self._flags[points]))
        character = chr(self._codepoints[row])
        if column == "character":
            return character
        if column == "name":
            return unicodedata.name(character)
        if column == "font":
            return FONTS[self._fonts[row]]
        if column == "key":
            return f"{FONTS[self._fonts[row]]}/U+{self._codepoints[row]:04X}"
        if column == "split":
            return self._splits[row]
        raise KeyError(column)

    def present(self, name: str) -> np.ndarray:
        return np.ones(len(self), dtype=bool)

    @cached_property
    def _splits(self) -> list[str]:
        return assign_splits(self._codepoints, self._fonts)


def assign_splits(codepoints: np.ndarray, fonts: np.ndarray) -> list[str]:
    """Return the split of each drawing.

    - ``unseen_characters``: one drawing each of 10 % of the characters (the first in the order of ``FONTS``);
    - ``validation``: one drawing each of another 3 %;
    - ``unseen_font``: the trained characters drawn in DejaVu Serif, upright if that face has the character;
    - ``train``: the drawings of all other characters in the other families;
    - ``other``: the remaining drawings: further faces of the held-out characters and of DejaVu Serif.

    The characters are ordered by a hash of their code point: the splits are the same on every machine.

    Args:
        codepoints: ``(n,)`` integer code point of each drawing.
        fonts: ``(n,)`` integer index of its face in ``FONTS``.

    Examples:
        >>> assign_splits(np.array([65, 66, 66]), np.array([0, 0, 12]))
        ['train', 'train', 'unseen_font']
    """
    order = np.lexsort((fonts, codepoints))
    characters, first = np.unique(codepoints[order], return_index=True)
    one_drawing = set(order[first].tolist())
    shuffled = sorted(characters.tolist(), key=lambda c: blake2b(f"U+{c:04X}".encode(), digest_size=8).digest())
    test_end, validation_end = round(0.10 * len(shuffled)), round(0.13 * len(shuffled))
    held_out = dict.fromkeys(shuffled[:test_end], "unseen_characters")
    held_out |= dict.fromkeys(shuffled[test_end:validation_end], "validation")
    serif = np.array([name.startswith(UNSEEN_FAMILY) for name in FONTS])[fonts]
    trained = set(codepoints[~serif].tolist()) - set(held_out)
    serif_order = order[serif[order]]
    _, first = np.unique(codepoints[serif_order], return_index=True)
    one_serif = set(serif_order[first].tolist())

    def split(row: int) -> str:
        character = int(codepoints[row])
        if character in held_out:
            return held_out[character] if row in one_drawing else "other"
        if serif[row]:
            return "unseen_font" if row in one_serif and character in trained else "other"
        return "train"

    return [split(row) for row in range(len(codepoints))]


def outline_graph(points: np.ndarray, flags: np.ndarray) -> Data:
    """Convert the contours to a graph.

    Args:
        points: ``(p, 2)`` float32 coordinates in em, y upwards from the baseline.
        flags: ``(p,)`` uint8; bit 0: the point is on the curve; bit 1: it starts a contour.

    Returns:
        A graph with ``x`` ``(p, 4)`` float32: x (centred), y, on-curve, contour start; ``edge_index`` ``(2, 2p)``: along
        each contour and back; ``edge_attr`` ``(2p, 3)`` float32: dx, dy, and 1 along the contour or -1 back.

    Examples:
        >>> triangle = outline_graph(np.array([[0, 0], [1, 0], [0, 1]], np.float32), np.array([3, 1, 1], np.uint8))
        >>> triangle.edge_index.tolist()
        [[0, 1, 2, 1, 2, 0], [1, 2, 0, 0, 1, 2]]
    """
    import torch

    start = (flags & 2) > 0
    point = np.arange(len(points))
    starts = np.flatnonzero(start)
    contour = np.cumsum(start) - 1
    ends = np.append(starts[1:], len(points)) - 1
    next_point = point + 1
    next_point[ends] = starts[contour[ends]]
    centre = (points[:, 0].min() + points[:, 0].max()) / 2
    x = np.stack([points[:, 0] - centre, points[:, 1], flags & 1, start], axis=1).astype(np.float32)
    step = points[next_point] - points
    edge_attr = np.concatenate([step, np.ones_like(step[:, :1])], axis=1)
    return _graph_class()(
        x=torch.from_numpy(x),
        edge_index=torch.from_numpy(np.stack([np.append(point, next_point), np.append(next_point, point)])),
        edge_attr=torch.from_numpy(np.concatenate([edge_attr, -edge_attr]).astype(np.float32)),
    )


@cache
def _graph_class() -> type[Data]:
    with ignore_import_warnings():
        from torch_geometric.data import Data
    return Data


def build_or_open_cache(cache: Path) -> Path:
    """Return the folder of the cached arrays, which the first process builds while others wait.

    Args:
        cache: the folder that contains this folder and its lock.
    """
    cache.mkdir(parents=True, exist_ok=True)
    recipe = {"format": FORMAT, "matplotlib": version("matplotlib"), "unicode": unicodedata.unidata_version}
    folder = cache / "glyphs-{format}-matplotlib{matplotlib}-unicode{unicode}".format(**recipe)
    with FileLock(cache / "glyphs.lock"):
        if not folder.is_dir():
            with atomic_folder(folder, marker="recipe.json") as new:
                _build(new)
                (new / "recipe.json").write_text(json.dumps(recipe))
    return folder


def _build(folder: Path) -> None:
    import matplotlib

    ttf, drawings = Path(matplotlib.get_data_path()) / "fonts" / "ttf", []
    with progress("Drawing the glyphs", len(FONTS), "fonts") as advance:
        for font in FONTS:
            drawings += _draw_font(ttf, font)
            advance(1)
    codepoints, fonts, images, points, flags = zip(*drawings, strict=True)
    np.save(folder / "codepoints.npy", np.array(codepoints, dtype=np.int32))
    np.save(folder / "fonts.npy", np.array(fonts, dtype=np.int16))
    np.save(folder / "images.npy", np.stack(images))
    np.save(folder / "points.npy", np.concatenate(points))
    np.save(folder / "flags.npy", np.concatenate(flags))
    np.save(folder / "offsets.npy", np.cumsum([0, *map(len, flags)]))


def _draw_font(ttf: Path, font: str) -> list[tuple[int, int, np.ndarray, np.ndarray, np.ndarray]]:
    from fontTools.ttLib import TTFont

    tables = TTFont(ttf / f"{font}.ttf")
    glyf, em = tables["glyf"], tables["head"].unitsPerEm  # pyright: ignore[reportAttributeAccessIssue]
    drawings = []
    for codepoint, glyph in sorted((tables.getBestCmap() or {}).items()):
        if not unicodedata.name(chr(codepoint), ""):
            continue
        coordinates, ends, on_curve, *_ = glyf[glyph].getCoordinates(glyf)
        if not len(coordinates):
            continue
        image = draw(ttf / f"{font}.ttf", chr(codepoint))
        if image.min() > 127:  # nothing is visible at this size
            continue
        flags = np.array(on_curve, dtype=np.uint8) & 1
        flags[[0, *(end + 1 for end in ends[:-1])]] |= 2
        points = np.array(coordinates, dtype=np.float32).reshape(-1, 2) / em
        drawings.append((codepoint, FONTS.index(font), image, points, flags))
    return drawings


def draw(font: Path, character: str) -> np.ndarray:
    """Draw a character in black on white: centred, on a fixed baseline, and scaled down if it does not fit.

    Args:
        font: a TrueType file.
        character: one character that the font contains.

    Returns:
        ``(48, 48)`` uint8.
    """
    from PIL import Image, ImageDraw

    left, top, right, bottom = _load_face(font, EM_PIXELS).getbbox(character, anchor="ls")
    size = min(EM_PIXELS, int(EM_PIXELS * (SIZE - 2) / max(right - left, bottom - top, 1)))
    left, top, right, bottom = _load_face(font, size).getbbox(character, anchor="ls")
    baseline = min(max(BASELINE, 1 - top), SIZE - 1 - bottom)
    picture = Image.new("L", (SIZE, SIZE), 255)
    ImageDraw.Draw(picture).text(
        ((SIZE - left - right) / 2, baseline), character, fill=0, font=_load_face(font, size), anchor="ls"
    )
    return np.asarray(picture)


def _load_face(font: Path, size: int, _open: dict[tuple[Path, int], Any] = {}) -> Any:  # noqa: B006 (a cache)
    from PIL import ImageFont

    if (font, size) not in _open:
        _open[font, size] = ImageFont.truetype(str(font), size, layout_engine=ImageFont.Layout.BASIC)
    return _open[font, size]
