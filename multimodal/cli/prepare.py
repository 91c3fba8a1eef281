"""``multimodal prepare``: from somebody's table to clean shards without leakage between their splits."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from multimodal.cli.data_options import add_data_options, data_settings, parse_with_data
from multimodal.cli.options import folder, parser, table

DESCRIPTION = """\
Clean a table, take out duplicates and near duplicates, split it so that rows with near-duplicate values stay in one
split, and write it as shards with a report. The output folder is then the table for `multimodal fit`: --data.table FOLDER
--data.split split.

The folder gets SPLIT-00000.parquet (or .tar), report.html, rejects.jsonl (rows left out, with their reasons),
duplicates.jsonl (rows left out that repeat another, with both keys) and prepare.json. Without --columns, every column of
pictures, sounds, SVG or GraphML files, or texts is one modality's."""
PREPARE_OPTIONS = ("seed", "format", "near", "near_bits", "shares", "balance", "shard_rows")
OFF = "off"
DATA_OPTIONS = ("columns", "key", "group", "split", "max_rejects")


def run(command: str, arguments: list[str]) -> None:
    p = parser(command, DESCRIPTION)
    p.add_argument(
        "table", type=table, metavar="TABLE", help="file, pattern, folder or URL of a table; or a configuration"
    )
    p.add_argument("--out", type=folder, required=True, help="folder to write; one of an earlier run is replaced")
    p.add_argument(
        "--files", type=folder, metavar="FOLDER", help="the table may name files in it too, not only in its own folder"
    )
    p.add_argument("--format", choices=("parquet", "webdataset"), help="of the shards (default: parquet)")
    p.add_argument("--shard_rows", type=int, metavar="N", help="rows in a shard (default: 10000)")
    p.add_argument(
        "--shares",
        nargs="+",
        type=_split_share,
        metavar="SPLIT=FRACTION",
        help="the splits to make (default: train=0.8 validation=0.1 test=0.1)",
    )
    p.add_argument(
        "--encoders",
        nargs="+",
        type=_modality_encoder,
        metavar="MODALITY=NAME",
        help="encoders that will be trained: values that they cannot read are rejects, as in graph=molecule",
    )
    p.add_argument("--balance", metavar="COLUMN", help="keep as many rows of each value as the rarest has")
    p.add_argument(
        "--near",
        type=_or_off(float, "0.9"),
        metavar="SIMILARITY",
        help="texts this similar are near duplicates, from 0.3 to 1 (default: 0.8); off: only equal ones are",
    )
    p.add_argument(
        "--near_bits",
        type=_or_off(int, "4"),
        metavar="N",
        help="so are pictures whose hashes differ in at most N bits, from 0 to 12 (default: 4); off: only equal ones are",
    )
    p.add_argument("--seed", type=int, help="of splits and balancing (default: 0)")
    p.add_argument("--json", action="store_true", help="print JSON")
    add_data_options(p)
    options, given = parse_with_data(p, arguments)
    p.check_paths(options)

    from multimodal.prepare.table import prepare_table

    data = data_settings(options.table, given)
    chosen: dict[str, Any] = {key: data[key] for key in DATA_OPTIONS if data.get(key) is not None}
    if isinstance(chosen.get("split"), dict):  # as in a configuration: the shares to split by
        chosen["shares"] = chosen.pop("split")
    chosen |= {key: value for key in PREPARE_OPTIONS if (value := getattr(options, key)) is not None}
    chosen |= {key: None for key in ("near", "near_bits") if chosen.get(key) == OFF}
    if options.shares is not None:
        chosen["shares"] = dict(options.shares)
    if options.encoders is not None:
        chosen["encoders"] = dict(options.encoders)
    outcome = prepare_table(data["table"], options.out, options=data.get("options"), files=options.files, **chosen)
    if options.json:
        print(json.dumps(outcome.to_json() | {"out": str(options.out)}, indent=1))
        return
    print(f"{outcome.summary}: {options.out}")
    for warning in outcome.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _or_off(number: type[float] | type[int], example: str) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            return OFF if text == OFF else number(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number such as {example}, or {OFF}") from None

    return parse


def _split_share(text: str) -> tuple[str, float]:
    name, _, part = text.rpartition("=")
    try:
        return name, float(part)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not SPLIT=FRACTION, as in train=0.8") from None


def _modality_encoder(text: str) -> tuple[str, str]:
    modality, equals, name = text.partition("=")
    if not (modality and equals and name):
        raise argparse.ArgumentTypeError(f"{text!r} is not MODALITY=NAME, as in graph=molecule")
    return modality, name
