"""Search results, and how a notebook shows them."""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

THUMBNAIL = 96  # pixels of the longer edge of a picture in a notebook
MAX_CELL = 80  # characters of a value in a notebook


@dataclass(frozen=True)
class Hit:
    """One search result: a row of the table.

    Args:
        key: key of the row.
        modality: modality of the vector that matched.
        score: cosine similarity, in [-1, 1].
        metadata: values of the row's other columns, by column.
        picture: image file of the row as bytes, if the index knows its table; None: there is none.

    Examples:
        >>> Hit("cup-1", "image", 0.91, {"title": "a red cup"}).metadata["title"]
        'a red cup'
    """

    key: str
    modality: str
    score: float
    metadata: dict[str, Any]
    picture: bytes | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return the entry of this hit in the output of ``multimodal search --json``."""
        return {"key": self.key, "modality": self.modality, "score": self.score, "metadata": self.metadata}


class Hits(list[Hit]):
    """Hits of one query, the best first: a list that a notebook shows as a table with pictures.

    Examples:
        >>> hits = Hits([Hit("cup-1", "image", 0.91, {"title": "a red cup"})])
        >>> hits.to_pandas()["title"].tolist()
        ['a red cup']
    """

    def to_pandas(self) -> DataFrame:
        """Return one row for each hit, with its score, modality, key and a column for each metadata name."""
        from pandas import DataFrame

        return DataFrame(
            [{"score": h.score, "modality": h.modality, "key": h.key} | h.metadata for h in self],
            columns=None if self else ["score", "modality", "key"],
        )

    def _repr_html_(self) -> str:
        names = list(dict.fromkeys(name for hit in self for name in hit.metadata))
        head = "".join(f"<th>{html.escape(name)}</th>" for name in ("", "score", "modality", "key", *names))
        rows = "".join(
            f"<tr><td>{_image(hit.picture)}</td><td>{hit.score:.3f}</td><td>{html.escape(hit.modality)}</td>"
            f"<td>{html.escape(hit.key)}</td>{''.join(f'<td>{_cell(hit.metadata.get(name))}</td>' for name in names)}</tr>"
            for hit in self
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"

    def grid(self, columns: int = 5) -> Grid:
        """Return the pictures of the hits side by side, for a notebook.

        Args:
            columns: pictures in a row, at least 1.
        """
        return Grid(self, columns)


@dataclass(frozen=True)
class Grid:
    """Pictures of hits in rows, each with its score, for a notebook.

    Args:
        hits: the hits; a hit without a picture is shown by its name or key alone.
        columns: pictures in a row, at least 1.

    Examples:
        >>> "cup-1" in Grid(Hits([Hit("cup-1", "image", 0.91, {})]))._repr_html_()
        True
    """

    hits: Hits
    columns: int = 5

    def _repr_html_(self) -> str:
        cells = "".join(
            f'<figure style="margin:4px;text-align:center">{_image(hit.picture)}'
            f"<figcaption>{html.escape(str(hit.metadata.get('name') or hit.key))}<br>{hit.score:.3f}</figcaption></figure>"
            for hit in self.hits
        )
        return f'<div style="display:grid;grid-template-columns:repeat({self.columns},max-content)">{cells}</div>'


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return html.escape(text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…")


def _image(data: bytes | None) -> str:
    """Return an ``img`` element with a small PNG, or nothing if there is no readable picture."""
    if data is None:
        return ""
    from multimodal.core.errors import Unreadable
    from multimodal.media.image import on_white, open_picture

    try:
        picture = on_white(open_picture(data))
    except Unreadable:
        return ""
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return f'<img src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}" alt="">'
