"""``multimodal faults``: suspected faults of the data, as a table to approve."""

from __future__ import annotations

import sys
from pathlib import Path

from multimodal.cli.data_options import add_data_options, add_split_options, parse_with_data
from multimodal.cli.options import model, parser

KEYS = ("key", "group", "max_rejects", "options")
DESCRIPTION = """\
Find rows whose values do not belong together, and rows that are one item under two names, within or across splits. Go through
the table that is written, put yes in the column `approve` of those that are right, and train with `approved: faults.csv` under
`data:`."""


def run(command: str, arguments: list[str]) -> None:
    p = parser(command, DESCRIPTION)
    p.add_argument("run", type=model, metavar="RUN", help="run or model folder")
    add_split_options(p, split="the rows to go through (default: all)", pool=None)
    p.add_argument(
        "--by",
        choices=("inputs", "model"),
        default="inputs",
        help="find neighbours by the pixels, words, ... themselves, which learned nothing from the pairs (default); or by the"
        " model, for pretrained encoders or rows that it was not trained on",
    )
    p.add_argument("--out", type=Path, required=True, help="the CSV file to write")
    add_data_options(p, KEYS)
    options, given = parse_with_data(p, arguments, KEYS)
    p.check_paths(options)

    from rich.console import Console

    from multimodal.evaluation.find_faults import find_faults

    found = find_faults(options.run, options.data, split=options.split, by=options.by, out=options.out, **given)
    for grid in found.grids():
        Console().print(grid.table())
    for note in found.notes:
        print(note, file=sys.stderr)
    print(f"Put yes in the column approve of those that are right: {options.out}", file=sys.stderr)
