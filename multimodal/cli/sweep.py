"""``multimodal sweep``: train a configuration with several settings, and compare the results."""

from __future__ import annotations

import argparse
import json

from multimodal.cli.options import TRUSTED_MODULES, folder, parser
from multimodal.core.errors import UsageError

DESCRIPTION = """\
Train a configuration with each combination of settings, each as a run of its own, and compare the finished runs. The same
command resumes a sweep that was stopped or killed: finished runs are not repeated, others continue from their last
checkpoint. The folder gets the runs, sweep.json, sweep.md and sweep.png."""
EPILOG = "multimodal sweep pairs.yaml --grid model.dim=64,256 --grid data.batch_size=128,512"


def _devices(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers of GPUs, as 0,1") from error


def run(command: str, arguments: list[str]) -> None:
    p = parser(command, f"{DESCRIPTION}\n\nexample: {EPILOG}")
    p.add_argument("config", metavar="CONFIG", help="a YAML file like configs/glyphs.yaml")
    p.add_argument(
        "--grid",
        metavar="KEY=VALUES",
        action="append",
        required=True,
        help="a key and its values, as model.dim=64,256; may be repeated. With --optuna also a range, as 0.0001..0.01",
    )
    p.add_argument("--out", type=folder, help="the sweep's folder (default: sweeps/ and the configuration's name)")
    p.add_argument("--optuna", metavar="N", type=int, help="train N runs, whose settings Optuna chooses by the results")
    p.add_argument(
        "--measure", metavar="NAME", help="the logged measure to choose by (default: the configuration's monitor)"
    )
    p.add_argument("--split", help="the split on which the runs are compared (default: the validation split)")
    where = p.add_mutually_exclusive_group()
    where.add_argument("--jobs", metavar="N", type=int, default=1, help="trainings at the same time (default: 1)")
    where.add_argument("--devices", metavar="0,1", type=_devices, help="GPUs; one training at a time runs on each")
    p.add_argument("--json", action="store_true", help="print JSON")
    options = p.parse_args(arguments)
    grid: dict[str, str] = {}
    for given in options.grid:
        key, equals, values = given.partition("=")
        if not equals:
            raise UsageError(f"--grid {given}: write a key and its values, as model.dim=64,256.")
        if key in grid:
            raise UsageError(f"--grid names {key} twice; list all of its values once, as {key}={grid[key]},{values}.")
        grid[key] = values

    from multimodal.experiment.sweep.run_sweep import sweep

    result = sweep(
        options.config,
        grid,
        options.out,
        optuna=options.optuna,
        measure=options.measure,
        split=options.split,
        jobs=options.jobs,
        devices=options.devices,
        trust_modules=TRUSTED_MODULES,
    )
    print(json.dumps(result.to_json(), indent=1) if options.json else result)
