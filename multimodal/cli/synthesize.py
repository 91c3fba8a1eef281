"""``multimodal synthesize``: a table with rows made from its own training rows."""

from __future__ import annotations

import json
from typing import Any

from multimodal.cli.data_options import add_data_options, data_settings, parse_with_data
from multimodal.cli.options import folder, parser, table

RECIPES = {
    "captions": "texts from templates over columns (--template)",
    "swaps": "hard negatives of texts, by another value of an attribute (--swap)",
    "pictures": "variants of pictures (--vary)",
    "molecules": "sentences about molecules by RDKit",
    "outlines": "variants of outlines",
}
DESCRIPTION = """\
Write a table with rows made from its training rows. Each is in its origin's group and split, and its column made_by says how it
was made. What equals or nearly equals a value of another split is refused. The output folder is a table: --data.table FOLDER
--data.split split.

Recipes: """ + "; ".join(f"{name}, {what}" for name, what in RECIPES.items())
DATA_OPTIONS = ("columns", "key", "group", "split", "split_seed", "max_rejects", "options", "train")
OPTIONS = ("vary", "count", "train", "seed", "near", "near_bits", "format")


def run(command: str, arguments: list[str]) -> None:
    p = parser(command, DESCRIPTION)
    p.add_argument(
        "table", type=table, metavar="TABLE", help="file, pattern, folder or URL of a table; or a configuration"
    )
    p.add_argument("recipes", metavar="RECIPE", nargs="+", help=", ".join(RECIPES))
    p.add_argument("--out", type=folder, required=True, help="folder to write; one of an earlier run is replaced")
    p.add_argument(
        "--template",
        action="append",
        default=[],
        help='a caption with columns in braces, as "a {colour} {kind}"; repeat',
    )
    p.add_argument(
        "--swap", action="append", default=[], metavar="COLUMN", help="an attribute that captions contain; repeat"
    )
    p.add_argument(
        "--vary",
        nargs="+",
        metavar="CHANGE",
        help="of pictures: rotation, scale, shift, stroke, background (default: all)",
    )
    p.add_argument("--count", type=int, metavar="N", help="rows that a recipe makes from each row (default: 1)")
    p.add_argument("--train", nargs="+", metavar="SPLIT", help="the splits that rows are made from (default: train)")
    p.add_argument("--files", type=folder, metavar="FOLDER", help="the table may name files in it too")
    p.add_argument("--format", choices=("parquet", "webdataset"), help="of the shards (default: parquet)")
    p.add_argument("--near", type=float, metavar="SIMILARITY", help="texts this similar are copies (default: 0.8)")
    p.add_argument(
        "--near_bits", type=int, metavar="N", help="so are pictures whose hashes differ in at most N bits (default: 4)"
    )
    p.add_argument("--seed", type=int, help="of all random choices (default: 0)")
    p.add_argument("--json", action="store_true", help="print JSON")
    add_data_options(p)
    options, given = parse_with_data(p, arguments)
    p.check_paths(options)

    from multimodal.prepare.synthesize.table import synthesize_table

    data = data_settings(options.table, given)
    chosen: dict[str, Any] = {key: data[key] for key in DATA_OPTIONS if data.get(key) is not None}
    chosen |= {key: value for key in OPTIONS if (value := getattr(options, key)) is not None}
    outcome = synthesize_table(
        data["table"],
        options.out,
        options.recipes,
        files=options.files,
        templates=options.template,
        swap=options.swap,
        **chosen,
    )
    if options.json:
        print(json.dumps(outcome.to_json() | {"out": str(options.out)}, indent=1))
        return
    print(f"{outcome}: {options.out}")
