"""``report.html``: one self-contained file without scripts or external resources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from multimodal.prepare.first_pass import FirstPass
from multimodal.prepare.outcome import Outcome
from multimodal.prepare.plan import Plan
from multimodal.prepare.report.examples import DisplayValue, Examples
from multimodal.prepare.report.statistics import BINS_PER_OCTAVE, Statistics

MAX_BARS = 30  # bars of a category chart
STYLE = """
:root { --ink: #1c2733; --soft: #5b6b7b; --line: #dde4ea; --bar: #2171b5; --pale: #c6dbef; --warn: #b45309; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: var(--ink); background: #f5f7f9; margin: 0; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 26px; margin: 0 0 2px; overflow-wrap: anywhere; } h2 { font-size: 18px; margin: 0 0 10px; }
h3 { font-size: 14px; margin: 16px 0 6px; overflow-wrap: anywhere; }
p { margin: 0 0 10px; } .soft { color: var(--soft); }
section { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 18px 22px; margin-top: 18px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin-top: 18px; }
.card { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 12px 16px; }
.card b { display: block; font-size: 24px; font-variant-numeric: tabular-nums; } .card span { color: var(--soft); }
.warn { border-left: 4px solid var(--warn); } .warn li { margin-bottom: 4px; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; } th { text-align: left; color: var(--soft); font-weight: 600; }
th, td { padding: 4px 12px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 8px 32px; }
svg { display: block; width: 100%; height: auto; }
svg text { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: var(--ink); }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 12px; margin-bottom: 12px; }
.row { border: 1px solid var(--line); border-radius: 6px; padding: 8px 12px; overflow-wrap: anywhere; min-width: 0; }
.row img { max-width: 112px; max-height: 112px; display: block; margin: 4px 0; border: 1px solid var(--line); }
.row small { color: var(--soft); }
@media (max-width: 560px) { .charts, .pair { grid-template-columns: 1fr; } }
"""


def write_report(
    path: Path, reading: FirstPass, plan: Plan, statistics: Statistics, examples: Examples, outcome: Outcome
) -> None:
    """Write the report as a HTML page.

    It shows the rows in and out with reasons, splits, warnings, coverage of modality pairs, histograms, near duplicates side
    by side, linked rows and the settings.

    Args:
        path: the file to write.
        reading: the first pass.
        plan: the plan.
        statistics: statistics of the written rows.
        examples: the collected example rows.
        outcome: counts of the rows, and warnings.
    """
    sections = [
        _cards(outcome),
        _warnings(outcome),
        _row_fates(outcome),
        _splits(reading, plan, outcome),
        _columns(statistics),
        _coverage(statistics),
        _histograms(statistics),
        _near_duplicates(reading, examples, outcome),
        _linked_rows(examples, plan),
        _settings(reading),
    ]
    title = f"{reading.source.name}: prepared"
    page = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{_text(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{_text(reading.source.name)}</h1>\n"
        '<p class="soft">What <code>multimodal prepare</code> found in this table, and what it wrote.</p>\n'
        f"{''.join(sections)}</main>\n</body>\n</html>\n"
    )
    path.write_text(page, encoding="utf-8", newline="\n")


def _text(text: object) -> str:
    """Escape any text for HTML; unprintable characters become replacement characters."""
    shown = "".join(c if c.isprintable() or c == " " else "\N{REPLACEMENT CHARACTER}" for c in str(text))
    return escape(shown)


def _section(title: str, *content: str, kind: str = "") -> str:
    return f'<section class="{kind}">\n<h2>{_text(title)}</h2>\n{"".join(content)}</section>\n'


def _paragraph(text: str) -> str:
    return f"<p>{_text(text)}</p>\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; numbers are right-aligned and have thousands separators."""
    lines = []
    numeric = set()
    for row in rows:
        cells = []
        for position, cell in enumerate(row):
            if isinstance(cell, int):
                numeric.add(position)
                cells.append(f'<td class="n">{cell:,}</td>')
            elif isinstance(cell, float):
                numeric.add(position)
                cells.append(f'<td class="n">{cell:.1%}</td>')
            else:
                cells.append(f"<td>{_text(cell)}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>\n")
    titles = "".join(
        f'<th class="n">{_text(t)}</th>' if p in numeric else f"<th>{_text(t)}</th>" for p, t in enumerate(head)
    )
    return f"<table>\n<tr>{titles}</tr>\n{''.join(lines)}</table>\n"


def _bars(bars: Sequence[tuple[str, int]]) -> str:
    """Return a bar chart with a horizontal bar for each label, as SVG."""
    tallest = max((count for _, count in bars), default=0) or 1
    lines = []
    for position, (label, count) in enumerate(bars):
        y, width = 22 * position, max(1.0 if count else 0.0, 300 * count / tallest)
        short = label if len(label) <= 24 else label[:23] + "…"
        lines.append(
            f'<text x="172" y="{y + 15}" text-anchor="end">{_text(short)}<title>{_text(label)}</title></text>'
            f'<rect x="180" y="{y + 3}" width="{width:.1f}" height="16" rx="2" fill="#2171b5"/>'
            f'<text x="{186 + width:.1f}" y="{y + 15}">{count:,}</text>\n'
        )
    return f'<svg viewBox="0 0 560 {22 * len(bars) + 4}" role="img">\n{"".join(lines)}</svg>\n'


def _histogram(bins: Mapping[int, int], unit: str) -> str:
    """Return a histogram of lengths over a logarithmic axis, as SVG; the bins are the bins of ``Statistics``."""
    low, high = min(bins), max(bins) + 1
    width, tallest = 500 / (high - low), max(bins.values())
    parts = []
    for b, count in sorted(bins.items()):
        height = max(1.5, 130 * count / tallest)
        edges = f"{2 ** (b / BINS_PER_OCTAVE):,.0f} to {2 ** ((b + 1) / BINS_PER_OCTAVE):,.0f} {unit}: {count:,}"
        parts.append(
            f'<rect x="{30 + (b - low) * width:.1f}" y="{150 - height:.1f}" width="{max(1.0, width - 1.5):.1f}"'
            f' height="{height:.1f}" fill="#2171b5"><title>{edges}</title></rect>\n'
        )
    step = max(1, (high - low) // 5)
    for b in range(low, high + 1, step):
        parts.append(
            f'<text x="{30 + (b - low) * width:.1f}" y="168" text-anchor="middle">{2 ** (b / BINS_PER_OCTAVE):,.0f}</text>\n'
        )
    parts.append('<line x1="30" y1="150.5" x2="530" y2="150.5" stroke="#5b6b7b"/>\n')
    parts.append(f'<text x="280" y="188" text-anchor="middle">{_text(unit)} (highest bar: {tallest:,} rows)</text>\n')
    return f'<svg viewBox="0 0 560 194" role="img">\n{"".join(parts)}</svg>\n'


# -- the sections


def _cards(outcome: Outcome) -> str:
    cards = [
        (outcome.rows_in, "rows in"),
        (outcome.rows_out, "rows out"),
        (outcome.rejects, "left out"),
        (outcome.duplicates, "duplicates"),
        (outcome.near_duplicates, "near duplicates"),
    ]
    inner = "".join(f'<div class="card"><b>{count:,}</b><span>{name}</span></div>\n' for count, name in cards)
    return f'<div class="cards">\n{inner}</div>\n'


def _warnings(outcome: Outcome) -> str:
    if not outcome.warnings:
        return _section("Warnings", _paragraph("None."))
    items = "".join(f"<li>{_text(warning)}</li>\n" for warning in outcome.warnings)
    return _section("Warnings", f"<ul>\n{items}</ul>\n", kind="warn")


def _row_fates(outcome: Outcome) -> str:
    bars = [(f"out: {name}", rows) for name, rows in outcome.splits.items()]
    bars += [("duplicates", outcome.duplicates), ("near duplicates", outcome.near_duplicates)]
    bars += [(f"left out: {reason}", rows) for reason, rows in outcome.reasons.items()]
    explanation = (
        "Every input row is counted once. rejects.jsonl has a line for each row left out, duplicates.jsonl for each"
        " duplicate."
    )
    return _section("Where the rows went", _paragraph(explanation), _bars(bars))


def _splits(reading: FirstPass, plan: Plan, outcome: Outcome) -> str:
    shares = reading.settings.shares if reading.settings.split is None else {}
    kept, rows = plan.kept, []
    for position, (name, count) in enumerate(outcome.splits.items()):
        of_split = plan.component[kept & (plan.split == position)]
        requested = f"{shares[name]:.1%}" if name in shares else "from the table"
        rows.append((name, requested, count, count / (outcome.rows_out or 1), len(set(of_split.tolist()))))
    if reading.settings.split is None:
        explanation = "Rows that share a group, or content that is equal or near, are linked and are in one split."
    else:
        explanation = f"The splits come from the column {reading.settings.split!r}."
    head = ("split", "requested", "rows", "fraction", "sets of linked rows")
    return _section("Splits", _paragraph(explanation), _table(head, rows))


def _columns(statistics: Statistics) -> str:
    rows = [
        (
            c.name,
            c.kind,
            c.modality or "—",
            statistics.present[c.name],
            statistics.present[c.name] / (statistics.rows or 1),
        )
        for c in statistics.columns
    ]
    return _section("Columns", _table(("column", "kind", "modality", "rows with a value", "fraction"), rows))


def _coverage(statistics: Statistics) -> str:
    names = statistics.modalities
    rows = [(a, *(statistics.rows_with_both[a, b] for b in names)) for a in names]
    explanation = "Number of written rows that have both modalities; on the diagonal, that have the modality."
    return _section("Coverage of modality pairs", _paragraph(explanation), _table(("", *names), rows))


def _histograms(statistics: Statistics) -> str:
    charts = []
    kinds = {c.name: c for c in statistics.columns}
    for name, bins in statistics.lengths.items():
        if bins:
            unit = "bytes" if kinds[name].is_file else "characters"
            charts.append(f"<div><h3>{_text(name)}: {unit}</h3>\n{_histogram(bins, unit)}</div>\n")
    for name, counts in statistics.categories.items():
        bars = counts.most_common(MAX_BARS)
        rest = len(counts) - len(bars)
        more = _paragraph(f"and {rest:,} more values") if rest else ""
        charts.append(f"<div><h3>{_text(name)}: rows of each value</h3>\n{_bars(bars)}{more}</div>\n")
    if not charts:
        return ""
    return _section("Lengths and categories", f'<div class="charts">\n{"".join(charts)}</div>\n')


def _row(examples: Examples, row: int, explanation: str) -> str:
    cells = "".join(
        f"<div><small>{_text(column)}</small> {_shown(value)}</div>\n" for column, value in examples.row(row).items()
    )
    return f'<div class="row"><small>row {examples.number(row):,}, {_text(explanation)}</small>\n{cells}</div>\n'


def _shown(value: DisplayValue) -> str:
    picture = f'<img src="{value.picture}" alt="{_text(value.text)}">' if value.picture else ""
    return f"{picture}{_text(value.text)}"


def _pairs(examples: Examples, pairs: Sequence[tuple[int, int]], left: str, right: str) -> str:
    return "".join(f'<div class="pair">\n{_row(examples, a, left)}{_row(examples, b, right)}</div>\n' for a, b in pairs)


def _near_duplicates(reading: FirstPass, examples: Examples, outcome: Outcome) -> str:
    settings = reading.settings
    explanation = (
        f"Texts are near if their 5-character shingles have a Jaccard similarity of at least {settings.near:g} and they contain"
        f" the same numbers; pictures if at most {settings.near_bits} of 64 bits of their perceptual hashes differ and their"
        " colours are similar; sounds and other values only if they are equal. A row is left out if all of its content is"
        " near the content of an earlier row."
    )
    if not outcome.near_duplicates:
        return _section("Near duplicates", _paragraph(explanation), _paragraph("There are none."))
    shown = f"{len(examples.near):,} of {outcome.near_duplicates:,}, evenly chosen:"
    pairs = [(kept, left) for left, kept in examples.near]
    return _section(
        "Near duplicates", _paragraph(explanation), _paragraph(shown), _pairs(examples, pairs, "kept", "left out")
    )


def _linked_rows(examples: Examples, plan: Plan) -> str:
    parts = []
    if examples.linked:
        parts.append("<h3>Alike in part of their content: both are kept, in one split</h3>\n")
        parts.append(_pairs(examples, examples.linked, "kept", "kept"))
    if examples.crossing:
        parts.append("<h3>Alike, but in different splits of the table</h3>\n")
        parts.append(_pairs(examples, examples.crossing, "kept", "kept"))
    if examples.common:
        parts.append("<h3>Values of many rows</h3>\n")
        rows = [
            (
                c.column,
                examples.row(row)[c.column].text,
                c.rows,
                "rows with a near value" if c.near else "rows with this value",
                "in one split" if c.links else "not linked",
            )
            for c, row in examples.common
        ]
        parts.append(_table(("column", "value", "rows", "", ""), rows))
        if len(plan.links.common) > len(rows):
            parts.append(_paragraph(f"and {len(plan.links.common) - len(rows):,} more"))
    return _section("Linked rows", *parts) if parts else ""


def _settings(reading: FirstPass) -> str:
    rows: list[tuple[str, Any]] = [(name, str(value)) for name, value in reading.settings.to_json().items()]
    return _section("Settings", _table(("setting", "value"), rows))
