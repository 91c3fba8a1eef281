"""``multimodal gallery``: hits of queries as one page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from multimodal.cli.conditions import CONDITION, conditions
from multimodal.cli.options import index_folder, model, parser
from multimodal.core.errors import UsageError

MAX_BYTES = 64 << 20  # of the file of queries


def run(command: str, arguments: list[str]) -> None:
    p = parser(
        command,
        "Write the hits of queries as one HTML file that can be sent to others. QUERIES is a text file with a query in each\n"
        'line, or JSON Lines (.jsonl) with an object of modalities and values in each line: {"text": "a red cup"}.',
    )
    p.add_argument("run", type=model, metavar="RUN", help="run or model folder")
    p.add_argument("index", type=index_folder, metavar="INDEX", help="index folder")
    p.add_argument("queries", metavar="QUERIES", type=Path, help="file of queries, .txt or .jsonl")
    p.add_argument("--out", type=Path, required=True, metavar="FILE", help="the page, .html")
    p.add_argument("--title", help="of the page (default: the name of the file of queries)")
    p.add_argument("-k", "--k", type=int, default=12, help="how many hits of each query (default: 12)")
    p.add_argument("--target", metavar="MODALITY", help="search the vectors of this modality alone, e.g. image")
    p.add_argument(
        "--where", action="append", metavar="COLUMN=VALUE", help=f"only these rows: {CONDITION}; may be repeated"
    )
    p.add_argument(
        "--min_precision", type=float, metavar="P", help="only hits of a score at which this fraction is right"
    )
    p.add_argument("--hybrid", action="store_true", help="also look for the words of each query")
    options = p.parse_args(arguments)
    queries = _read(options.queries)
    p.check_paths(options)

    from multimodal.search.gallery import write_gallery
    from multimodal.search.index import Index

    with Index.open(options.index, model=options.run) as index:
        hits = write_gallery(
            index,
            queries,
            options.out,
            title=options.title or options.queries.stem,
            k=options.k,
            target=options.target,
            where=conditions("--where", options.where or []),
            min_precision=options.min_precision,
            hybrid=options.hybrid,
        )
    print(f"{sum(map(len, hits)):,} hits of {len(hits):,} queries: {options.out}")


def _read(path: Path) -> list[str | dict[str, Any]]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{path} is larger than {MAX_BYTES >> 20} MiB.")
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist; write a file with a query in each line.") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a text in UTF-8 ({error.reason}).") from error
    if path.suffix.lower() != ".jsonl":
        return [line for line in lines if line]
    queries: list[str | dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            query = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path}, line {number}: not JSON ({error}).") from error
        if not isinstance(query, dict):
            raise UsageError(f'{path}, line {number}: a query is an object like {{"text": "a red cup"}}.')
        queries.append(query)
    return queries
