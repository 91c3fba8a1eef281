"""Confusions among neighbours: by classes where there is a label, else the wrong candidates that most queries find first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from multimodal.core.html_page import paragraph, text
from multimodal.data.shown_values import Values
from multimodal.evaluation.evaluated import Evaluated
from multimodal.evaluation.page.first_hits import FirstHits
from multimodal.evaluation.page.heat_map import heat_map

MOST_CLASSES = 20
MOST_HUBS = 8  # of a direction
MOST_PAIRS = 12  # directions
OTHERS = "others"


def confusion_html(evaluated: Evaluated, first: Mapping[str, FirstHits], values: Values) -> str:
    """Return the confusions of each direction.

    Args:
        evaluated: the evaluation; its setting ``label`` names the column of classes.
        first: "text->image" -> its first hits.
        values: the values of the table.
    """
    label = evaluated.settings.get("label")
    parts = []
    for pair, found in list(first.items())[:MOST_PAIRS]:
        drawn = "" if len(found.queries) == found.total else f", {len(found.queries):,} of {found.total:,} queries"
        content = _hubs(evaluated, pair, found, values) if label is None else _classes(evaluated, pair, found, label)
        parts.append(f"<div><h3>{text(pair.replace('->', ' → ') + drawn)}</h3>\n{content}</div>\n")
    if label is None:
        words = (
            "The candidates that come first most often where they are wrong. Few that many queries find are hubs."
            " With --label COLUMN, this is a matrix of classes."
        )
    else:
        words = (
            f"Rows: {label} of the query; columns: {label} of its first hit, also where this is not the query's own row."
            f" Counts, coloured by their fraction of the row; the {MOST_CLASSES} most frequent classes."
        )
    return paragraph(words) + f'<div class="{"stack" if label else "charts"}">\n{"".join(parts)}</div>\n'


def _rows_of(keys: Sequence[str], rows: list[int]) -> list[int]:
    return [int(keys[row]) for row in rows]


def _ends(evaluated: Evaluated, pair: str, found: FirstHits) -> tuple[list[int], list[int]]:
    """Return the rows, in the table, of the queries and of what they find first."""
    source, _, target = pair.partition("->")
    queries, pool = evaluated.searched_for, evaluated.pool.embeddings
    return (
        _rows_of(queries.keys, queries.rows[source][found.queries].tolist()),
        _rows_of(pool.keys, pool.rows[target][found.hits].tolist()),
    )


def _classes(evaluated: Evaluated, pair: str, found: FirstHits, label: str) -> str:
    samples = evaluated.queries.samples
    asked, hit = (samples.texts(label, rows) for rows in _ends(evaluated, pair, found))
    both = [(a, b) for a, b in zip(asked, hit, strict=True) if a is not None and b is not None]
    totals = Counter(name for names in both for name in names)
    names = sorted(sorted(totals), key=lambda name: -totals[name])[:MOST_CLASSES]
    shown = sorted(names)
    counts = Counter((a if a in names else OTHERS, b if b in names else OTHERS) for a, b in both)
    if any(OTHERS in entry for entry in counts):
        shown.append(OTHERS)
    of_row = Counter(a for a, _ in counts.elements())

    def cell(row: str, column: str) -> tuple[float, str] | None:
        count = counts[row, column]
        return (count / of_row[row], f"{count:,}") if count else None

    return heat_map(shown, shown, cell, "query ↓ found →") if both else paragraph("No query has a class.")


def _hubs(evaluated: Evaluated, pair: str, found: FirstHits, values: Values) -> str:
    target = pair.partition("->")[2]
    wrong = ~found.is_right
    _, hit = _ends(evaluated, pair, found)
    counts = Counter(row for row, is_wrong in zip(hit, wrong.tolist(), strict=True) if is_wrong)
    if not counts:
        return paragraph("No query finds a wrong candidate first.")
    total = (
        f"{int(wrong.sum()):,} of {len(wrong):,} queries find a wrong candidate first, {len(counts):,} different ones."
    )
    hubs = [(row, count) for row, count in counts.items() if count > 1]
    if not hubs:
        return paragraph(f"{total} None comes first for more than one.")
    common = sorted(hubs, key=lambda entry: (-entry[1], entry[0]))[:MOST_HUBS]
    items = "".join(
        f'<li class="hit"><b>{count:,} ×</b>{values.show(row, target).html()}'
        f'<small dir="auto">{text(values.samples.key_of(row)[:80])}</small></li>'
        for row, count in common
    )
    return f'{paragraph(total)}<ol class="hits">{items}</ol>\n'
