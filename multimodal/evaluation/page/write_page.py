"""Compose the page of a report from its measures, its vectors and its run."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from multimodal.core.html_page import as_json, cards, page, paragraph, section, table, text
from multimodal.core.run_folder import RUN_CONFIG
from multimodal.data.shown_values import Values
from multimodal.evaluation.evaluated import Evaluated
from multimodal.evaluation.figure import Figure
from multimodal.evaluation.grid import Grid
from multimodal.evaluation.page.confusion import confusion_html
from multimodal.evaluation.page.curves import training_curves
from multimodal.evaluation.page.first_hits import first_hits
from multimodal.evaluation.page.heat_map import recall_maps
from multimodal.evaluation.page.searches import example_searches, searches_html, worst_searches
from multimodal.evaluation.page.space_map import map_html
from multimodal.evaluation.points import Points
from multimodal.evaluation.provenance import machine, versions
from multimodal.evaluation.render import all_measures_grid
from multimodal.evaluation.results import Results
from multimodal.evaluation.sections import SECTIONS, Section

PAGE = "report.html"
MOST_CARDS = 6  # directions in the summary
MAX_CONFIG = 200_000  # characters


def page_html(report: Results, points: Points | None = None, values: Values | None = None) -> str:
    """Return the page of a report.

    Args:
        report: the report. Without its ``evaluated``, the page has tables alone.
        points: the vectors as points; None: there is no map.
        values: the values of the table; None: there are no examples.
    """
    run = Path(report.run)
    parts: list[tuple[str, str, str]] = [
        ("retrieval", "Retrieval", _retrieval(report)),
        ("recall", "Recall by modality", recall_maps(report.pairs) if report.pairs else ""),
    ]
    if report.evaluated is not None and values is not None:
        parts += _of_vectors(report.evaluated, points, values)
    parts += [(f"section-{name}", _capital(name), _section(name, found)) for name, found in report.sections.items()]
    curves = _figures(training_curves(run)) or '<p class="soft">This model has no logs of a training.</p>\n'
    parts.append(("training", "Training", curves))
    parts.append(("notes", "Notes", _notes(report)))
    parts.append(("provenance", "How this was measured", _provenance(report, run)))
    parts = [part for part in parts if part[2]]
    links = "".join(f'<a href="#{text(name)}">{text(title)}</a>\n' for name, title, _ in parts)
    pool = "" if report.pool == report.split else f", searching {report.pool!r}"
    body = (
        f"<h1>{text(report.run)}</h1>\n"
        f'<p class="soft">Evaluation of {text(repr(report.split) + pool)}, by <code>multimodal evaluate</code>.</p>\n'
        f'{_summary(report)}<nav aria-label="sections">\n{links}</nav>\n'
        f"{''.join(section(title, content, name=name) for name, title, content in parts)}"
        f'<script type="application/json" id="media">{as_json([] if values is None else values.urls)}</script>\n'
        '<noscript><p class="soft">Pictures, filters and the map need JavaScript.</p></noscript>\n'
    )
    own = files("multimodal.evaluation.page")
    style, script = (own.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return page(f"{report.run}: evaluation", body, "\n" + style, script)


def _of_vectors(evaluated: Evaluated, points: Points | None, values: Values) -> list[tuple[str, str, str]]:
    """Return what is drawn from the vectors and the table: examples, failures, confusions and the map."""
    searched_for, pool = evaluated.searched_for, evaluated.pool.embeddings
    first = {p: first_hits(searched_for, pool, p, found.queries) for p, found in evaluated.by_query.items()}
    examples, worst = example_searches(evaluated), worst_searches(evaluated, first)
    words = "Queries drawn at random, with the first candidates that they find. Scores are cosines."
    parts = []
    if examples:
        parts.append(("examples", "Examples", paragraph(words) + searches_html(examples, values, "examples")))
        words = "Queries whose right answer ranks worst, and those that a wrong candidate leads by the largest margin."
        failures = paragraph(words) + searches_html(worst, values, "failures") if worst else paragraph("None.")
        parts.append(("failures", "The worst failures", failures))
        parts.append(("confusion", "Confusion among neighbours", confusion_html(evaluated, first, values)))
    if points is not None:
        parts.append(("map", "Map of the space", map_html(points, values)))
    return parts


def _summary(report: Results) -> str:
    entries: list[tuple[str, str]] = []
    if report.rows is not None:
        entries.append((f"{report.rows:,}", f"rows, of {report.table_rows:,}"))
    if report.pairs:
        pools = {r.pool for r in report.pairs.values()}
        size = f"{min(pools):,}" if len(pools) == 1 else f"{min(pools):,} to {max(pools):,}"
        entries.append((size, "candidates in the pool"))
        mean = sum(r.recall_at_1 for r in report.pairs.values()) / len(report.pairs)
        entries.append((f"{mean:.1%}", "mean R@1 of all pairs"))
    for pair, r in list(report.pairs.items())[:MOST_CARDS]:
        interval = report.intervals.get(pair, {}).get("recall@1")
        between = "" if interval is None else f", {100 * interval.low:.1f} to {100 * interval.high:.1f}"
        entries.append((f"{r.recall_at_1:.1%}", f"R@1{between}: {pair.replace('->', ' → ')}"))
    return cards(entries)


def _retrieval(report: Results) -> str:
    if not report.pairs:
        return paragraph("No query has a right answer in the pool.")
    grids = [all_measures_grid(report.pairs, "", report.intervals, report.highest_recall_at_1)]
    grids += [
        all_measures_grid(found, f"The {name} baseline, fitted on {report.train_split!r}")
        for name, found in report.baselines.items()
        if found
    ]
    words = (
        "Recalls in per cent, with 95 % intervals where queries were drawn again by their groups; ranks count from 1."
    )
    return "".join(map(_grid, grids)) + f'<p class="soft">{text(words)}</p>\n'


def _section(name: str, found: Section) -> str:
    about = f'<p class="soft">{text(_capital(SECTIONS[name].describes))}.</p>\n' if name in SECTIONS else ""
    figures = getattr(found, "figures", list)  # a section may offer some
    return about + _figures(figures()) + f'<div class="grids">\n{"".join(map(_grid, found.grids()))}</div>\n'


def _figures(figures: Iterable[Figure]) -> str:
    charts = "".join(f"<div><h3>{text(figure.title)}</h3>\n{figure.svg}</div>\n" for figure in figures)
    return f'<div class="charts">\n{charts}</div>\n' if charts else ""


def _grid(grid: Grid) -> str:
    """Return a table; an interval in brackets is on a line of its own."""

    def cell(words: str, number: int) -> str:
        shown, bracket, rest = words.partition(" (") if number else (words.replace(" -> ", " → "), "", "")
        more = f"<small>{text(rest.removesuffix(')'))}</small>" if bracket else ""
        return f'<td{" class=n" if number else ""} dir="auto">{text(shown)}{more}</td>'

    head = "".join(
        f'<th scope="col"{" class=n" if n else ""}>{text(name.replace(" -> ", " → "))}</th>'
        for n, name in enumerate(grid.columns)
    )
    rows = "".join(f"<tr>{''.join(cell(words, n) for n, words in enumerate(row))}</tr>\n" for row in grid.rows)
    caption = f"<caption>{text(grid.title.replace(' -> ', ' → '))}</caption>" if grid.title else ""
    label = text(grid.title or "Retrieval")
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{label}"><table>{caption}<thead><tr>{head}</tr></thead>\n'
        f"<tbody>{rows}</tbody></table></div>\n"
    )


def _notes(report: Results) -> str:
    notes = [*report.notes, *(f"The section {n!r} is left out: {reason}" for n, reason in report.left_out.items())]
    items = "".join(f"<li>{text(note)}</li>\n" for note in notes)
    return f"<ul>\n{items}</ul>\n" if items else ""


def _provenance(report: Results, run: Path) -> str:
    rows: list[tuple[str, object]] = [
        ("run or model", report.run),
        ("seed", "unknown" if report.seed is None else str(report.seed)),
    ]
    if (evaluated := report.evaluated) is not None:
        samples = evaluated.queries.samples
        rows += [("table", samples.name), ("fingerprint of the data", samples.fingerprint)]
        rows.append(("fingerprint of the model", evaluated.embedder.fingerprint))
    rows += versions().items()
    rows.append(("machine", machine()))
    if (cost := report.cost) is not None:
        rows.append(("time of the evaluation", f"{cost.seconds:.1f} s, without this page"))
        if cost.peak_bytes is not None:
            rows.append(("peak memory of the process", f"{cost.peak_bytes / 2**30:.2f} GiB"))
        if cost.peak_gpu_bytes is not None:
            rows.append(("peak memory of the GPU", f"{cost.peak_gpu_bytes / 2**30:.2f} GiB"))
    return table(("", ""), [(name, str(value)) for name, value in rows]) + _config(run / RUN_CONFIG)


def _config(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            content = file.read(MAX_CONFIG + 1)
    except (OSError, ValueError):
        return ""
    cut = f"\n… ({MAX_CONFIG:,} characters are shown)" if len(content) > MAX_CONFIG else ""
    lines = "\n".join(text(line) for line in (content[:MAX_CONFIG] + cut).expandtabs(2).split("\n"))
    return f'<details><summary>{RUN_CONFIG}</summary><pre tabindex="0">{lines}</pre></details>\n'


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]
