"""``report.html``: one self-contained file without scripts or external resources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multimodal.core.html_page import bars, cards, page, paragraph, section, table, text
from multimodal.prepare.first_pass import FirstPass
from multimodal.prepare.outcome import Outcome
from multimodal.prepare.plan import Plan
from multimodal.prepare.report.examples import DisplayValue, Examples
from multimodal.prepare.report.statistics import BINS_PER_OCTAVE, Statistics

MAX_BARS = 30  # bars of a category chart


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
    heading = (
        f"<h1>{text(reading.source.name)}</h1>\n"
        '<p class="soft">What <code>multimodal prepare</code> found in this table, and what it wrote.</p>\n'
    )
    path.write_text(page(title, heading + "".join(sections)), encoding="utf-8", newline="\n")


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
            f' height="{height:.1f}" class="bar"><title>{edges}</title></rect>\n'
        )
    step = max(1, (high - low) // 5)
    for b in range(low, high + 1, step):
        parts.append(
            f'<text x="{30 + (b - low) * width:.1f}" y="168" text-anchor="middle">{2 ** (b / BINS_PER_OCTAVE):,.0f}</text>\n'
        )
    parts.append('<line x1="30" y1="150.5" x2="530" y2="150.5" class="axis"/>\n')
    parts.append(f'<text x="280" y="188" text-anchor="middle">{text(unit)} (highest bar: {tallest:,} rows)</text>\n')
    return f'<svg viewBox="0 0 560 194" role="img">\n{"".join(parts)}</svg>\n'


# -- the sections


def _cards(outcome: Outcome) -> str:
    counts = [
        (outcome.rows_in, "rows in"),
        (outcome.rows_out, "rows out"),
        (outcome.rejects, "left out"),
        (outcome.duplicates, "duplicates"),
        (outcome.near_duplicates, "near duplicates"),
    ]
    return cards((f"{count:,}", name) for count, name in counts)


def _warnings(outcome: Outcome) -> str:
    if not outcome.warnings:
        return section("Warnings", paragraph("None."))
    items = "".join(f"<li>{text(warning)}</li>\n" for warning in outcome.warnings)
    return section("Warnings", f"<ul>\n{items}</ul>\n", kind="warn")


def _row_fates(outcome: Outcome) -> str:
    fates = [(f"out: {name}", rows) for name, rows in outcome.splits.items()]
    fates += [("duplicates", outcome.duplicates), ("near duplicates", outcome.near_duplicates)]
    fates += [(f"left out: {reason}", rows) for reason, rows in outcome.reasons.items()]
    explanation = (
        "Every input row is counted once. rejects.jsonl has a line for each row left out, duplicates.jsonl for each"
        " duplicate."
    )
    return section("Where the rows went", paragraph(explanation), bars(fates))


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
    return section("Splits", paragraph(explanation), table(head, rows))


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
    return section("Columns", table(("column", "kind", "modality", "rows with a value", "fraction"), rows))


def _coverage(statistics: Statistics) -> str:
    names = statistics.modalities
    rows = [(a, *(statistics.rows_with_both[a, b] for b in names)) for a in names]
    explanation = "Number of written rows that have both modalities; on the diagonal, that have the modality."
    return section("Coverage of modality pairs", paragraph(explanation), table(("", *names), rows))


def _histograms(statistics: Statistics) -> str:
    charts = []
    kinds = {c.name: c for c in statistics.columns}
    for name, bins in statistics.lengths.items():
        if bins:
            unit = "bytes" if kinds[name].is_file else "characters"
            charts.append(f"<div><h3>{text(name)}: {unit}</h3>\n{_histogram(bins, unit)}</div>\n")
    for name, counts in statistics.categories.items():
        common = counts.most_common(MAX_BARS)
        rest = len(counts) - len(common)
        more = paragraph(f"and {rest:,} more values") if rest else ""
        charts.append(f"<div><h3>{text(name)}: rows of each value</h3>\n{bars(common)}{more}</div>\n")
    if not charts:
        return ""
    return section("Lengths and categories", f'<div class="charts">\n{"".join(charts)}</div>\n')


def _row(examples: Examples, row: int, explanation: str) -> str:
    cells = "".join(
        f"<div><small>{text(column)}</small> {_shown(value)}</div>\n" for column, value in examples.row(row).items()
    )
    return f'<div class="row"><small>row {examples.number(row):,}, {text(explanation)}</small>\n{cells}</div>\n'


def _shown(value: DisplayValue) -> str:
    picture = f'<img src="{value.picture}" alt="{text(value.text)}">' if value.picture else ""
    return f"{picture}{text(value.text)}"


def _pairs(examples: Examples, pairs: Sequence[tuple[int, int]], left: str, right: str) -> str:
    return "".join(f'<div class="pair">\n{_row(examples, a, left)}{_row(examples, b, right)}</div>\n' for a, b in pairs)


def _near_duplicates(reading: FirstPass, examples: Examples, outcome: Outcome) -> str:
    settings = reading.settings
    texts = "only if they are equal"
    if settings.near is not None:
        texts = (
            f"if their 5-character shingles have a Jaccard similarity of at least {settings.near:g} and they contain the"
            " same numbers"
        )
    pictures = "only if their pixels are equal"
    if settings.near_bits is not None:
        pictures = f"if at most {settings.near_bits} of 64 bits of their perceptual hashes differ and their colours are similar"
    explanation = (
        f"Texts are near {texts}; pictures {pictures}; sounds and other values only if they are equal. A row is left out if"
        " all of its content is near the content of an earlier row."
    )
    if not outcome.near_duplicates:
        return section("Near duplicates", paragraph(explanation), paragraph("There are none."))
    shown = f"{len(examples.near):,} of {outcome.near_duplicates:,}, evenly chosen:"
    pairs = [(kept, left) for left, kept in examples.near]
    return section(
        "Near duplicates", paragraph(explanation), paragraph(shown), _pairs(examples, pairs, "kept", "left out")
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
        parts.append(table(("column", "value", "rows", "", ""), rows))
        if len(plan.links.common) > len(rows):
            parts.append(paragraph(f"and {len(plan.links.common) - len(rows):,} more"))
    return section("Linked rows", *parts) if parts else ""


def _settings(reading: FirstPass) -> str:
    rows: list[tuple[str, Any]] = [(name, str(value)) for name, value in reading.settings.to_json().items()]
    return section("Settings", table(("setting", "value"), rows))
