"""``multimodal canary``: are the known hits of known queries still found?"""

from __future__ import annotations

import json

from multimodal.cli.options import fraction, index_folder, model, parser
from multimodal.core.errors import MultimodalError

DESCRIPTION = """\
Search queries whose hits are known, and print those that do not find them. FILE is a table (CSV, JSON Lines, Parquet) with
a column for each modality of the queries, such as text, and the column expected: the key that has to be among the first ten
hits, or a list of keys. The columns k, target and where set these for a query. The exit code is 1 if a query fails."""


def run(command: str, arguments: list[str]) -> None:
    p = parser(command, DESCRIPTION)
    p.add_argument("run", type=model, metavar="RUN", help="run or model folder")
    p.add_argument("index", type=index_folder, metavar="INDEX", help="index folder")
    p.add_argument("file", metavar="FILE", help="table of queries and the keys that they have to find")
    p.add_argument(
        "--allow",
        type=fraction,
        default=0.0,
        metavar="FRACTION",
        help="the fraction of the queries that may fail (default: 0)",
    )
    p.add_argument("--json", action="store_true", help="print JSON")
    options = p.parse_args(arguments)
    p.check_paths(options)

    from multimodal.monitor.canary import run_canaries
    from multimodal.search.index import Index

    with Index.open(options.index, model=options.run) as index:
        result = run_canaries(index, options.file)
    print(json.dumps(result.to_json(), indent=1) if options.json else result)
    failed, count = len(result.failed), len(result.outcomes)
    if failed > options.allow * count:
        allowed = f"{options.allow:.3g} of them" if options.allow else "none"
        raise MultimodalError(f"more canaries failed than may: {allowed} (--allow).")
