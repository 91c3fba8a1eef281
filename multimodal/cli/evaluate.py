"""``multimodal evaluate``: retrieval between all pairs of modalities."""

from __future__ import annotations

import json
import sys

from multimodal.cli.data_options import add_data_options, parse_with_data
from multimodal.cli.options import folder, parser
from multimodal.core.errors import UsageError

KEYS = ("key", "group", "max_rejects", "options")


def run(command: str, arguments: list[str]) -> None:
    p = parser(command, "Measure retrieval between all ordered pairs of modalities of a split.")
    p.add_argument("run", metavar="RUN", help="run or model folder")
    p.add_argument("--data", help="a configuration with a `data:` section, or a table's name (default: the run's data)")
    p.add_argument("--split", help="the split to evaluate (default: the data's test split)")
    p.add_argument("--pool", metavar="SPLIT", help="search in this split, or in all rows (default: the split itself)")
    p.add_argument(
        "--baseline",
        choices=("linear",),
        help="also fit and measure a linear baseline, where modalities have features for it",
    )
    p.add_argument(
        "--space",
        action="store_true",
        help="also measure how the space is used: effective rank, hubs, the modality gap, search in all modalities at once",
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
    p.add_argument("--out", type=folder, help="also write metrics.json, metrics.md and retrieval.png to this folder")
    p.add_argument("--json", action="store_true", help="print JSON")
    add_data_options(p, KEYS)
    options, given = parse_with_data(p, arguments, KEYS)
    if options.template and options.label is None:
        raise UsageError("--template describes the classes of a column: name it with --label.")

    from rich.console import Console

    from multimodal.evaluation.run_evaluation import evaluate
    from multimodal.evaluation.zero_shot import TEMPLATES

    report = evaluate(
        options.run,
        options.data,
        split=options.split,
        pool=options.pool,
        baseline=options.baseline,
        space=options.space,
        label=options.label,
        templates=options.template or TEMPLATES,
        out=options.out,
        **given,
    )
    if options.json:
        print(json.dumps(report.to_json(), indent=1))
    else:
        for table in report.tables():
            Console().print(table)
    for note in report.notes:
        print(note, file=sys.stderr)
