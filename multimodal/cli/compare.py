"""``multimodal compare``: runs side by side on the same queries."""

from __future__ import annotations

import json

from multimodal.cli.data_options import add_data_options, add_split_options, parse_with_data
from multimodal.cli.options import folder, model, parser

KEYS = ("key", "group", "max_rejects", "options")
DESCRIPTION = """\
Measure retrieval by several runs on the same queries and the same pool, and say which differences hold: by a randomization
test over the groups of the queries, with Holm's correction for all runs and directions of a measure. A row that one of the
runs cannot read is left out for all."""


def run(command: str, arguments: list[str]) -> None:
    p = parser(command, DESCRIPTION)
    p.add_argument("runs", type=model, metavar="RUN", nargs="+", help="run or model folder; the first is the baseline")
    p.add_argument("--baseline", metavar="RUN", help="the run that the others are compared with (default: the first)")
    add_split_options(p, of="the runs'")
    p.add_argument("--out", type=folder, help="also write compare.json, compare.md and compare.png to this folder")
    p.add_argument("--json", action="store_true", help="print JSON")
    add_data_options(p, KEYS)
    options, given = parse_with_data(p, arguments, KEYS)
    p.check_paths(options)

    from multimodal.evaluation.compare import compare

    comparison = compare(
        options.runs,
        options.data,
        baseline=options.baseline,
        split=options.split,
        pool=options.pool,
        out=options.out,
        **given,
    )
    print(json.dumps(comparison.to_json(), indent=1) if options.json else comparison)
