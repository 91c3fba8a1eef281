"""``multimodal embed``: resumable bulk embedding of a table."""

from __future__ import annotations

import json
import sys
import time

from multimodal.cli.data_options import add_data_options, parse_with_data
from multimodal.cli.options import folder, parser

KEYS = ("key", "group", "max_rejects", "options")


def run(command: str, arguments: list[str]) -> None:
    p = parser(command, "Embed the rows of a table. The same command continues what was stopped.")
    p.add_argument("run", metavar="RUN", help="run or model folder")
    p.add_argument("table", metavar="TABLE", nargs="?", help="a table, or a configuration (default: the run's)")
    p.add_argument("--split", default="all", help="the split to embed (default: all rows)")
    p.add_argument("--out", type=folder, required=True, help="folder of the embeddings")
    p.add_argument("--json", action="store_true", help="print JSON")
    add_data_options(p, KEYS)
    options, given = parse_with_data(p, arguments, KEYS)

    from multimodal.search.embed import embed_table
    from multimodal.search.embedding_folder import finished_rows, read_manifest

    start, before = time.perf_counter(), finished_rows(options.out)
    rejects = embed_table(options.run, options.table, out=options.out, split=options.split, **given)
    rows = read_manifest(options.out).rows
    seconds = time.perf_counter() - start
    new = rows - before
    rate = new / seconds
    if options.json:
        counts = {"rows": rows, "rejects": len(rejects), "rows_before": before, "out": str(options.out)}
        print(json.dumps(counts | {"seconds": seconds, "rows_per_second": rate}))
    elif not new:
        print(f"{rows - len(rejects):,} rows had been embedded before, nothing was left to do: {options.out}")
    else:
        earlier = f", {before:,} of them before," if before else ""
        print(f"{rows - len(rejects):,} rows embedded{earlier} in {seconds:.1f} s ({rate:,.0f} rows/s): {options.out}")
    if len(rejects):
        print(rejects.summary(), file=sys.stderr)
