"""``multimodal mine``: rows that are worth pairing next, or hard negatives for training."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from multimodal.cli.data_options import add_data_options, parse_with_data
from multimodal.cli.options import model, parser, table
from multimodal.core.errors import UsageError

KEYS = ("key", "group", "max_rejects", "options")
DESCRIPTION = """\
List the rows of one modality alone that are worth pairing next, the most useful first, as a CSV file: those of which the model
is uncertain, in regions far from what is paired, unlike each other.

With --negatives image-text, write the table again instead, as a folder of shards, with a column of hard negatives: for each
training row with both modalities, the text of another group that its picture is nearest to, below --ratio of the score of its
own. Train with `negatives: {text: COLUMN_negative}` under `data:`."""


def run(command: str, arguments: list[str]) -> None:
    p = parser(command, DESCRIPTION)
    p.add_argument("run", type=model, metavar="RUN", help="run or model folder")
    p.add_argument(
        "table", type=table, metavar="TABLE", nargs="?", help="a table, or a configuration (default: the run's)"
    )
    p.add_argument("--out", type=Path, required=True, help="the CSV file to write; with --negatives, the folder")
    p.add_argument("--split", help="the rows to go through (default: all; with --negatives, the training split)")
    p.add_argument(
        "--count", type=int, metavar="N", help="rows to list (default: 100); negatives of each row (default: 1)"
    )
    p.add_argument(
        "--by",
        choices=("all", "covered", "diverse", "uncertain", "random"),
        help="list rows by one of these alone (default: all, uncertain and badly covered)",
    )
    p.add_argument("--negatives", metavar="PAIR", help="find hard negatives: modality that searches, modality found")
    p.add_argument(
        "--ratio", type=float, help="negatives score at most this fraction of the row's own score (default: 0.95)"
    )
    p.add_argument("--skip", type=int, metavar="N", help="skip the N nearest negatives (default: 0)")
    p.add_argument("--index", type=Path, metavar="INDEX", help="look for negatives in this index of the model")
    p.add_argument("--json", action="store_true", help="print JSON")
    add_data_options(p, KEYS)
    options, given = parse_with_data(p, arguments, KEYS)
    of_negatives = {name: v for name in ("ratio", "skip", "index") if (v := getattr(options, name)) is not None}
    if options.negatives is None and of_negatives:
        raise UsageError(f"--{next(iter(of_negatives))} is an option of --negatives PAIR, which is not given.")
    if options.negatives is not None and options.by is not None:
        raise UsageError("--by chooses rows to pair; hard negatives are always the nearest ones.")
    p.check_paths(options)
    count = {} if options.count is None else {"count": options.count}

    if options.negatives is None:
        from multimodal.monitor.mine import mine_rows

        by = {} if options.by is None else {"by": options.by}
        found = mine_rows(options.run, options.table, split=options.split, out=options.out, **count, **by, **given)
        for note in found.notes:
            print(note, file=sys.stderr)
    else:
        from multimodal.monitor.mine_negatives import mine_negatives

        chosen = {"pair": options.negatives, "split": options.split, "out": options.out}
        found = mine_negatives(options.run, options.table, **chosen, **count, **of_negatives, **given)
    if options.json:
        print(json.dumps(found.to_json() | {"out": str(options.out)}, indent=1))
    else:
        print(f"{found}\n{options.out}")
