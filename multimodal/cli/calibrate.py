"""``multimodal calibrate``: what a model's scores mean, measured on validation rows and saved with the model."""

from __future__ import annotations

import json

from multimodal.cli.data_options import add_data_options, add_split_options, parse_with_data
from multimodal.cli.options import folder, model, parser

KEYS = ("key", "group", "max_rejects", "options")
DESCRIPTION = """\
Measure how often hits with a score are right, for queries that have an answer and queries that have none, and save it with the
model, so that `multimodal search --min_precision 0.9` finds nothing where nothing is."""


def run(command: str, arguments: list[str]) -> None:
    p = parser(command, DESCRIPTION)
    p.add_argument("run", type=model, metavar="RUN", help="run or model folder")
    add_split_options(
        p,
        split="rows that the model was not trained on (default: the validation split; of another table, all)",
        pool="search in this split, or in all rows; best one like the index that will be searched",
    )
    p.add_argument(
        "--close_gap",
        action="store_true",
        help="first subtract each modality's mean over training rows, which makes another model; needs --out",
    )
    p.add_argument("--out", type=folder, help="the folder to write the model to (default: it replaces the run's model)")
    p.add_argument("--json", action="store_true", help="print the calibration as JSON")
    add_data_options(p, KEYS)
    options, given = parse_with_data(p, arguments, KEYS)
    p.check_paths(options)

    from rich.console import Console

    from multimodal.evaluation.calibrate import calibrate, calibration_grid

    found = calibrate(
        options.run,
        options.data,
        split=options.split,
        pool=options.pool,
        close_gap=options.close_gap,
        out=options.out,
        **given,
    )
    if options.json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        Console().print(calibration_grid(found).table())
