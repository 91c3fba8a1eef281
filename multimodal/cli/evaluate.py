"""``multimodal evaluate``: retrieval between all pairs of modalities."""

from __future__ import annotations

import json
import sys

from multimodal.cli.conditions import CONDITION, conditions
from multimodal.cli.data_options import add_data_options, add_split_options, parse_with_data
from multimodal.cli.options import folder, model, parser
from multimodal.core.errors import UsageError

KEYS = ("key", "group", "max_rejects", "options")
SECTION_NAMES = (
    "space",
    "calibration",
    "sizes",
    "missing",
    "robustness",
    "faults",
)  # those of evaluation/sections.py, which imports torch


def run(command: str, arguments: list[str]) -> None:
    p = parser(command, "Measure retrieval between all ordered pairs of modalities of a split.")
    p.add_argument("run", type=model, metavar="RUN", help="run or model folder")
    add_split_options(p)
    p.add_argument(
        "--baseline",
        choices=("linear",),
        help="also fit and measure a linear baseline, where modalities have features for it",
    )
    p.add_argument(
        "--query_where",
        metavar="COLUMN=VALUE",
        action="append",
        default=[],
        help=f"search only for these rows: {CONDITION}; may be repeated",
    )
    p.add_argument(
        "--pool_where",
        metavar="COLUMN=VALUE",
        action="append",
        default=[],
        help="search only in these rows, also within one modality; may be repeated",
    )
    p.add_argument(
        "--fuse",
        metavar="MODALITIES",
        help="also search with these modalities at once, as text+image or text=0.7+image=0.3",
    )
    p.add_argument(
        "--sections",
        metavar="NAMES",
        help=f"also measure these, separated by commas, or all: {', '.join(SECTION_NAMES)} (with --out: those that are quick)",
    )
    p.add_argument(
        "--slice",
        metavar="COLUMN",
        action="append",
        default=[],
        help="also measure retrieval by the values of this column; may be repeated",
    )
    p.add_argument(
        "--neighbours",
        metavar="TABLE",
        action="append",
        default=[],
        help="also run the nearest-neighbour tests of this table (columns anchor, nearer, farther; first, second, grade; or"
        " a, b, c, d); may be repeated",
    )
    p.add_argument(
        "--label",
        metavar="COLUMN",
        help="also measure how well the classes of a column are known: clusters, classifiers, zero-shot",
    )
    p.add_argument(
        "--template",
        metavar="TEXT",
        action="append",
        help='a text that describes a class for zero-shot classification, like "a photo of a {}"; may be repeated',
    )
    p.add_argument(
        "--out",
        type=folder,
        help="also write a report to this folder: report.html, model_card.md, metrics.json, metrics.md, points.parquet and"
        " retrieval.png",
    )
    p.add_argument(
        "--projection",
        choices=("pca", "umap"),
        default="pca",
        help="how the report's map of the space is made (default: pca)",
    )
    p.add_argument("--json", action="store_true", help="print JSON")
    add_data_options(p, KEYS)
    options, given = parse_with_data(p, arguments, KEYS)
    if options.template and options.label is None:
        raise UsageError("--template describes the classes of a column: name it with --label.")
    p.check_paths(options)

    from rich.console import Console

    from multimodal.evaluation.run_evaluation import evaluate
    from multimodal.evaluation.zero_shot import TEMPLATES

    report = evaluate(
        options.run,
        options.data,
        split=options.split,
        pool=options.pool,
        baseline=options.baseline,
        query_where=conditions("--query_where", options.query_where) or None,
        pool_where=conditions("--pool_where", options.pool_where) or None,
        fuse=options.fuse,
        sections=options.sections if options.sections in (None, "all") else options.sections.split(","),
        slices=options.slice,
        neighbours=options.neighbours,
        label=options.label,
        templates=options.template or TEMPLATES,
        out=options.out,
        projection=options.projection,
        **given,
    )
    if options.json:
        print(json.dumps(report.to_json(), indent=1))
    else:
        asked_for = options.sections or options.label or options.slice or options.neighbours
        for table in report.tables(sections=bool(asked_for)):  # those of a report by default are in its files
            Console().print(table)
    for note in report.notes:
        print(note, file=sys.stderr)
    if options.out is not None and not options.json:
        print(f"The whole report: {options.out}/report.html", file=sys.stderr)
