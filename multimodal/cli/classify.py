"""``multimodal classify``: a trained head's predictions for a table."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from multimodal.cli.data_options import add_data_options, parse_with_data
from multimodal.cli.options import model, parser, table

KEYS = ("key", "max_rejects", "options")
DESCRIPTION = """\
Predict a target of a table's rows by a head that was trained with the model (Classification, MultiLabel or Regression). The
result has a row's key, its label and the probability of each class, or the numbers. If the table has the column of the target,
the accuracy is printed as well."""


def run(command: str, arguments: list[str]) -> None:
    p = parser(command, DESCRIPTION)
    p.add_argument("run", type=model, metavar="RUN", help="run or model folder")
    p.add_argument(
        "table", type=table, metavar="TABLE", nargs="?", help="a table, or a configuration (default: the run's)"
    )
    p.add_argument("--target", help="the target to predict (default: the only one)")
    p.add_argument("--label", metavar="COLUMN", help="the column to compare with (default: that of the run's targets)")
    p.add_argument("--split", help="the split to predict (default: the run's test split; of another table, all rows)")
    p.add_argument("--out", type=Path, metavar="FILE", help="the .csv or .parquet file to write (default: print CSV)")
    p.add_argument("--json", action="store_true", help="print the outcome as JSON")
    add_data_options(p, KEYS)
    options, given = parse_with_data(p, arguments, KEYS)
    p.check_paths(options)

    from multimodal.core.errors import UsageError
    from multimodal.evaluation.classify import classify_table

    if options.json and options.out is None:
        raise UsageError("--json prints the outcome in place of the rows: name a file for them with --out.")
    outcome = classify_table(
        options.run,
        options.table,
        out=sys.stdout.buffer if options.out is None else options.out,
        target=options.target,
        label=options.label,
        split=options.split,
        **given,
    )
    if options.json:
        outcome_json = outcome.to_json() | {"out": str(options.out)}
        print(json.dumps(outcome_json))
    else:
        where = "" if options.out is None else f": {options.out}"
        print(f"{outcome}{where}", file=sys.stderr if options.out is None else sys.stdout)
    if outcome.rejects is not None and len(outcome.rejects):
        print(outcome.rejects.summary(), file=sys.stderr)
