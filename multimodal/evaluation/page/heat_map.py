"""Tables whose cells are coloured by their value: recalls of pairs of modalities, and counts of confusions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from multimodal.core.html_page import text
from multimodal.core.html_table import shorten
from multimodal.evaluation.retrieval import Retrieval

MAX_NAME = 24  # characters of a row's or a column's name


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    cell: Callable[[str, str], tuple[float, str] | None],
    corner: str = "",
) -> str:
    """Return a table with coloured cells.

    Args:
        rows, columns: their names.
        cell: from names of a row and a column to a value in [0, 1], by which the cell is coloured, and its text; None: empty.
        corner: text above the names of the rows.

    Examples:
        >>> "--v:0.50" in heat_map(["text"], ["image"], lambda row, column: (0.5, "50.0"))
        True
    """
    head = "".join(f'<th scope="col" dir="auto" title="{text(name)}">{_short(name)}</th>' for name in columns)
    lines = []
    for row in rows:
        cells = []
        for column in columns:
            found = cell(row, column)
            if found is None:
                cells.append('<td class="n"></td>')
            else:
                value = min(1.0, max(0.0, found[0])) if found[0] == found[0] else 0.0
                cells.append(f'<td class="n" style="--v:{value:.2f}">{text(found[1])}</td>')
        lines.append(f'<tr><th scope="row" dir="auto" title="{text(row)}">{_short(row)}</th>{"".join(cells)}</tr>\n')
    table = f'<table class="heat"><tr><th>{text(corner)}</th>{head}</tr>\n{"".join(lines)}</table>'
    return f'<div class="wide" tabindex="0" role="region" aria-label="{text(corner or "table")}">{table}</div>\n'


def _short(name: str) -> str:
    return text(shorten(name, MAX_NAME))


def recall_maps(pairs: Mapping[str, Retrieval]) -> str:
    """Return recall@1 and recall@10 by the modality of the queries and the one that is found.

    Args:
        pairs: "text->image" -> its measures.
    """
    sources = list(dict.fromkeys(pair.partition("->")[0] for pair in pairs))
    found_modalities = {pair.partition("->")[2] for pair in pairs}
    targets = [m for m in sources if m in found_modalities] + sorted(found_modalities - set(sources))

    def cell(name: str) -> Callable[[str, str], tuple[float, str] | None]:
        def of(source: str, target: str) -> tuple[float, str] | None:
            found = pairs.get(f"{source}->{target}")
            return None if found is None else (getattr(found, name), f"{100 * getattr(found, name):.1f}")

        return of

    maps = (
        f"<div><h3>R@{k}, per cent</h3>\n{heat_map(sources, targets, cell(f'recall_at_{k}'), 'query ↓ found →')}</div>\n"
        for k in (1, 10)
    )
    return f'<div class="charts">\n{"".join(maps)}</div>\n'
