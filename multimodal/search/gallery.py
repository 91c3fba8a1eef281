"""Hits of queries as one page that can be sent to others: no server, no network, no file next to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from multimodal.core.errors import MultimodalError, UsageError, check_names
from multimodal.core.html_page import as_json, page, text
from multimodal.core.html_table import shorten
from multimodal.core.progress import progress
from multimodal.core.system_errors import writing
from multimodal.data.samples import Samples
from multimodal.data.shown_values import Values
from multimodal.data.tables.open import IN_MEMORY
from multimodal.search.hits import Hit, Hits
from multimodal.search.index import Index

MAX_QUERIES = 2000
MAX_BYTES = 20_000_000  # of all pictures, drawings and sounds
MAX_NAME = 80  # characters
NAMES = ("name", "title")  # columns that name a row


def write_gallery(
    index: Index,
    queries: Iterable[str | Mapping[str, Any]],
    out: str | Path,
    *,
    title: str = "Hits",
    table: Any = None,
    **search: Any,
) -> list[Hits]:
    """Write the hits of queries as one HTML file, with the pictures, drawings and sounds of queries and hits in it.

    Args:
        index: the index; it knows its model, see ``Index.open``.
        queries: each a text, or modality -> value; at most 2,000.
        out: the file, ``.html``. An existing one is replaced.
        title: of the page.
        table: the ``Samples`` or ``DataModule`` that were embedded. None: the table is opened again with the settings of the
            embedding; if it cannot be, hits are shown by their metadata.
        **search: arguments of ``Index.search``: ``k``, ``target``, ``where``, ``min_precision``, ``hybrid``, ``weights``.

    Returns:
        The hits of each query.

    Raises:
        UsageError: there are no queries or too many, the index does not know its model, or an argument is wrong.
        MultimodalError: a query cannot be read, or the file cannot be written.

    Examples:
        >>> from multimodal import create, Embedder
        >>> embedder = Embedder({"text": create("text", "bag")}, dim=8)
        >>> embedder.fit_processors({"text": ["cups", "hats"] * 3})
        >>> samples = Samples.of([{"title": "cups"}, {"title": "hats"}], {"text": "title"}, key="title")
        >>> found = write_gallery(Index.from_table(embedder, samples), ["cups"], "hits.html", table=samples, k=1)
        >>> found[0][0].key, Path("hits.html").read_text()[:15]
        ('cups', '<!doctype html>')
    """
    out = Path(out)
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"The gallery is an HTML file, so {str(out)!r} must end in .html.")
    embedder = index.need_model()
    check_names("write_gallery", search, ("k", "target", "min_precision", "where", "weights", "hybrid", "exact"))
    asked = [{"text": query} if isinstance(query, str) else dict(query) for query in queries]
    if not 1 <= len(asked) <= MAX_QUERIES:
        raise UsageError(f"A gallery shows 1 to {MAX_QUERIES:,} queries, got {len(asked):,}.")
    with progress("Searching", len(asked)) as advance:
        hits = [_search(index, search, query, advance) for query in asked]
    samples = _samples_of(index, table)
    values = Values(
        Samples.of([{"text": ""}], {"text": "text"}) if samples is None else samples,
        embedder.processors,
        MAX_BYTES,
    )
    articles = "".join(_article(query, found, values, samples) for query, found in zip(asked, hits, strict=True))
    style, script = (
        files("multimodal.search").joinpath(f"gallery.{kind}").read_text("utf-8") for kind in ("css", "js")
    )
    body = (
        f'<h1>{text(title)}</h1>\n<p class="soft">{len(asked):,} queries, {len(index):,} vectors</p>\n'
        f'<label class="find">Find <input type="search" id="find" placeholder="a query or a hit"></label>\n{articles}'
        f'<script type="application/json" id="media">{as_json(values.urls)}</script>\n'
    )
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page(title, body, style, script), encoding="utf-8")
    return hits


def _search(index: Index, settings: dict[str, Any], query: dict[str, Any], advance: Callable[[int], object]) -> Hits:
    hits = index.search(**settings, **query)
    advance(1)
    return hits


def _samples_of(index: Index, table: Any) -> Samples | None:
    if table is not None:
        return getattr(table, "samples", table)
    if index.data is None or index.data["table"] == IN_MEMORY:
        return None
    try:
        return Samples.of(**index.data)
    except (MultimodalError, OSError):  # it has moved, or is of another machine
        return None


def _article(query: Mapping[str, Any], hits: Sequence[Hit], values: Values, samples: Samples | None) -> str:
    shown = "".join(values.show_value(value, modality).html() for modality, value in query.items())
    items = "".join(_item(hit, values, samples) for hit in hits) or '<li class="soft">Nothing is found.</li>'
    return f'<article>\n<div class="query">{shown}</div>\n<ol class="hits">{items}</ol>\n</article>\n'


def _item(hit: Hit, values: Values, samples: Samples | None) -> str:
    row = None if samples is None else samples.rows_by_key.get(hit.key)
    name = next((str(hit.metadata[column]) for column in NAMES if hit.metadata.get(column)), hit.key)
    score = f"{hit.score:.3f}" if hit.probability is None else f"{hit.probability:.0%} likely right"
    score += f", words: {' '.join(hit.words)}" if hit.words else ""
    shown = "" if row is None else _values_of(row, hit.modality, values)
    return (
        f'<li class="hit">{shown}<b dir="auto">{text(shorten(name, MAX_NAME))}</b>'
        f"<small>{text(score)}</small><small>{text(shorten(hit.key, MAX_NAME))}</small></li>"
    )


def _values_of(row: int, found: str, values: Values) -> str:
    """Return what was found, and before it a picture or drawing of the row if what was found is a text."""
    first = values.show(row, found)
    if first.kind != "text":
        return first.html()
    others = (values.show(row, modality) for modality in values.samples.modalities if modality != found)
    seen = next((shown.html() for shown in others if shown.kind in ("picture", "drawing")), "")
    return seen + first.html()
