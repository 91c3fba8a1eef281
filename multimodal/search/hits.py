"""Search results, and how a notebook shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

from multimodal.core.errors import UsageError, suggest
from multimodal.core.html_table import html_cell, html_of_cells, shorten
from multimodal.media.picture_grid import draw_grid, thumbnail

if TYPE_CHECKING:
    from pandas import DataFrame
    from PIL import Image

MAX_LINE = 120  # characters of a hit as text


@dataclass  # not frozen: making the hits of a query would take twice as long
class Hit:
    """One search result: a row of the table.

    Args:
        key: key of the row.
        modality: modality of the vector that matched.
        score: cosine similarity, in [-1, 1].
        metadata: values of the row's other columns, by column.
        picture_of: reads the picture of a key; None: the index does not know its table.
        probability: that the hit is right, in [0, 1]; None: the model's scores are not calibrated for it.
        words: the words of a hybrid search that found it; none: its vector did.

    Examples:
        >>> Hit("cup-1", "image", 0.91, {"title": "a red cup"}).metadata["title"]
        'a red cup'
    """

    key: str
    modality: str
    score: float
    metadata: dict[str, Any]
    picture_of: Callable[[str], bytes | None] | None = field(default=None, repr=False, compare=False)
    probability: float | None = None
    words: Sequence[str] = ()

    @property
    def picture(self) -> bytes | None:
        """The row's image file as bytes, read from the table; None: there is none, or the index does not know its table."""
        return None if self.picture_of is None else self.picture_of(self.key)

    def to_json(self) -> dict[str, Any]:
        """Return the entry of this hit in the output of ``multimodal search --json``."""
        entry = {"key": self.key, "modality": self.modality, "score": self.score, "metadata": self.metadata}
        entry |= {} if self.probability is None else {"probability": self.probability}
        return entry | ({"words": list(self.words)} if self.words else {})


class Hits(list[Hit]):
    """Hits of one query, the best first: a list that prints as lines and that a notebook shows as a table with pictures.

    Examples:
        >>> hits = Hits([Hit("cup-1", "image", 0.91, {"title": "a red cup"})])
        >>> hits
        0.910 image cup-1 title=a red cup
        >>> hits.to_pandas()["title"].tolist()
        ['a red cup']
    """

    def __repr__(self) -> str:
        lines = (f"{hit.score:.3f} {hit.modality} {hit.key} {_words_of(hit)} {_described(hit)}".split() for hit in self)
        return "\n".join(shorten(" ".join(words), MAX_LINE) for words in lines) or "No hits"

    @overload
    def __getitem__(self, position: SupportsIndex) -> Hit: ...

    @overload
    def __getitem__(self, position: slice) -> Hits: ...

    def __getitem__(self, position: SupportsIndex | slice) -> Hit | Hits:
        return Hits(super().__getitem__(position)) if isinstance(position, slice) else super().__getitem__(position)

    def to_pandas(self) -> DataFrame:
        """Return one row for each hit, with its score, modality, key and a column for each metadata name."""
        from pandas import DataFrame

        return DataFrame(
            [{"score": h.score, "modality": h.modality, "key": h.key} | h.metadata for h in self],
            columns=None if self else ["score", "modality", "key"],
        )

    def _repr_html_(self) -> str:
        names = list(dict.fromkeys(name for hit in self for name in hit.metadata))
        images = [_image(hit.picture) for hit in self]
        first = ("",) if any(images) else ()  # without a name, as a column of the table may be a "picture"
        rows = []
        for hit, image in zip(self, images, strict=True):
            found = f"{hit.score:.3f} {_words_of(hit)}".strip()
            values = (found, hit.modality, hit.key, *(hit.metadata.get(name) for name in names))
            rows.append([*([image] if first else []), *map(html_cell, values)])
        return html_of_cells((*first, "score", "modality", "key", *names), rows)

    def grid(self, columns: int = 5, caption: str | None = None) -> Grid:
        """Return the pictures of the hits side by side, as one picture that a notebook shows.

        Args:
            columns: pictures in a row, at least 1.
            caption: column of the metadata to write below each picture. None: ``name`` or ``title``, or else the key.

        Raises:
            UsageError: no hit has such a column, or columns is less than 1.
        """
        return Grid(self, columns, caption)


class HitLists(list[Hits]):
    """Hits of several queries, in the order of the queries: a list that shows those of each query apart.

    Examples:
        >>> HitLists([Hits([Hit("cup-1", "image", 0.91, {})]), Hits([Hit("mug-2", "text", 0.5, {"name": "mug"})])])
        0.910 image cup-1
        <BLANKLINE>
        0.500 text mug-2 mug
    """

    def __repr__(self) -> str:
        return "\n\n".join(map(repr, self)) or "No queries"

    @overload
    def __getitem__(self, position: SupportsIndex) -> Hits: ...

    @overload
    def __getitem__(self, position: slice) -> HitLists: ...

    def __getitem__(self, position: SupportsIndex | slice) -> Hits | HitLists:
        found = super().__getitem__(position)
        return found if isinstance(found, Hits) else HitLists(found)

    def _repr_html_(self) -> str:
        return "".join(f"<p>Query {number}</p>{hits._repr_html_()}" for number, hits in enumerate(self))


@dataclass(frozen=True)
class Grid:
    """Pictures of hits in rows, each with its score; a notebook shows it, ``save`` writes it to a file.

    Args:
        hits: the hits; a hit without a picture is shown by its caption alone.
        columns: pictures in a row, at least 1.
        caption: column of the metadata to write below each picture. None: ``name`` or ``title``, or else the key.

    Raises:
        UsageError: no hit has such a column, or columns is less than 1.

    Examples:
        >>> grid = Grid(Hits([Hit("cup-1", "image", 0.91, {"title": "a red cup"})] * 3), columns=2)
        >>> grid
        Grid of 3 hits in 2 columns
        >>> grid.draw().size
        (272, 312)
    """

    hits: Hits
    columns: int = 5
    caption: str | None = None

    def __post_init__(self) -> None:
        if self.columns < 1:
            raise UsageError(f"A grid has at least 1 column, got {self.columns}.")
        known = sorted({name for hit in self.hits for name in hit.metadata})
        if self.caption is not None and self.hits and self.caption not in known:
            raise UsageError(f"No hit has {self.caption!r}.{suggest(self.caption, known)}")

    def __repr__(self) -> str:
        return f"Grid of {len(self.hits)} hits in {self.columns} columns"

    def draw(self) -> Image.Image:
        """Return the grid as one picture, on white."""
        return draw_grid([(hit.picture, self._text(hit), f"{hit.score:.3f}") for hit in self.hits], self.columns)

    def save(self, path: str | Path) -> None:
        """Write the grid to a file, in the format of its ending: ``.png``, ``.jpg``, ..."""
        self.draw().save(path)

    def _text(self, hit: Hit) -> str:
        names = ("name", "title") if self.caption is None else (self.caption,)
        return next((str(v) for name in names if (v := hit.metadata.get(name)) is not None), hit.key)

    def _repr_png_(self) -> bytes:
        from multimodal.media.image import png_file

        return png_file(self.draw())


def _words_of(hit: Hit) -> str:
    return f"[words: {' '.join(hit.words)}]" if hit.words else ""


def _described(hit: Hit) -> str:
    """Return the name of a hit, or else its columns on one line."""
    if hit.metadata.get("name"):
        return str(hit.metadata["name"])
    return " | ".join(f"{name}={value}" for name, value in hit.metadata.items() if value not in (None, "", hit.key))


def _image(data: bytes | None) -> str:
    """Return an ``img`` element with a small PNG, or nothing if there is no readable picture."""
    from multimodal.media.image import png_url

    picture = thumbnail(data)
    return "" if picture is None else f'<img src="{png_url(picture)}" alt="">'
