"""``multimodal embed``: resumable bulk embedding of a table."""

from __future__ import annotations

import json
import sys
import time

from multimodal.cli.data_options import add_data_options, parse_with_data
from multimodal.cli.options import folder, model, parser, table, whole_number

PROCESSES = whole_number("a number of processes", 1024)
KEYS = ("key", "group", "max_rejects", "options")


def run(command: str, arguments: list[str]) -> None:
    p = parser(
        command,
        "Embed the rows of a table. The same command continues what was stopped, and embeds again what has changed.",
    )
    p.add_argument("run", type=model, metavar="RUN", help="run or model folder")
    p.add_argument(
        "table", type=table, metavar="TABLE", nargs="?", help="a table, or a configuration (default: the run's)"
    )
    p.add_argument("--split", default="all", help="the split to embed (default: all rows)")
    p.add_argument("--out", type=folder, required=True, help="folder of the embeddings")
    p.add_argument(
        "--processes", type=PROCESSES, metavar="N", help="embed in N processes (default: one for each GPU, else one)"
    )
    p.add_argument(
        "--dtype", choices=("float32", "float16", "int8"), default="float32", help="of the vectors (default: float32)"
    )
    p.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        help="of the computation (default: bfloat16 where the processor or GPU is fast at it, else float32)",
    )
    p.add_argument(
        "--metadata",
        type=_names,
        metavar="COLUMNS",
        help="columns that describe a row, as name,category (default: all)",
    )
    p.add_argument(
        "--ray", metavar="ADDRESS", help="embed on the Ray cluster at this address (local: one on this machine)"
    )
    p.add_argument("--json", action="store_true", help="print JSON")
    add_data_options(p, KEYS)
    options, given = parse_with_data(p, arguments, KEYS)
    p.check_paths(options)

    from multimodal.search.embed import embed_table
    from multimodal.search.embedding_folder import read_manifest

    start = time.perf_counter()
    chosen = {name: getattr(options, name) for name in ("split", "processes", "dtype", "precision", "metadata", "ray")}
    made = embed_table(options.run, options.table, out=options.out, **chosen, **given)
    seconds = time.perf_counter() - start
    rows = read_manifest(options.out).rows
    new = rows - made.rows_before
    rate = new / seconds
    if options.json:
        counts = {"rows": rows, "rejects": len(made.rejects), "rows_before": made.rows_before, "out": str(options.out)}
        counts |= {"with_alternatives": made.with_alternatives, "unchanged": made.unchanged}
        print(json.dumps(counts | {"seconds": seconds, "rows_per_second": rate}))
    elif not new:
        print(f"{made} had been embedded before, nothing was left to do: {options.out}")
    else:
        earlier = f", {made.rows_before:,} of them before," if made.rows_before else ""
        earlier += f", {made.unchanged:,} of them unchanged," if made.unchanged else ""
        print(f"{made} embedded{earlier} in {seconds:.1f} s ({rate:,.0f} rows/s): {options.out}")
    if len(made.rejects):
        print(made.rejects.summary(), file=sys.stderr)


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]
