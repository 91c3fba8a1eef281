"""``multimodal search``: one query against an index."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from multimodal.cli.conditions import CONDITION, conditions
from multimodal.cli.options import index_folder, model, parser
from multimodal.cli.values import JSON_EXAMPLE, asking_for_json, check_modalities, split_values
from multimodal.core.errors import MultimodalError, UsageError

LISTS = ("--like", "--unlike", "--where", "--weight")
OWN_OPTIONS = ("--k", "--target", "--min_precision", "--hybrid", "--exact", "--json", "--help", *LISTS)


def run(command: str, arguments: list[str]) -> None:
    p = parser(
        command,
        "Search an index with a value of any modality that the model knows, with several that are combined, or with rows of\n"
        "the index. A row of numbers and categories, or a graph, may be given as JSON:\n"
        f"--tabular '{JSON_EXAMPLE}'.",
    )
    p.usage = (
        "multimodal search RUN INDEX [--text T] [--image FILE] [--graph FILE] [--MODALITY VALUE] [--like KEY]"
        " [--unlike KEY] [--weight MODALITY=W] [-k 10] [--target MODALITY] [--where COLUMN=VALUE] [--min_precision P]"
        " [--hybrid [WORDS]] [--exact] [--json]"
    )
    p.add_argument("run", type=model, metavar="RUN", help="run or model folder")
    p.add_argument("index", type=index_folder, metavar="INDEX", help="index folder")
    p.add_argument("-k", "--k", type=int, default=10, help="how many hits (default: 10)")
    p.add_argument("--target", metavar="MODALITY", help="search the vectors of this modality alone, e.g. image")
    p.add_argument(
        "--where", action="append", metavar="COLUMN=VALUE", help=f"only these rows: {CONDITION}; may be repeated"
    )
    p.add_argument("--like", action="append", metavar="KEY", help="more like this row of the index; may be repeated")
    p.add_argument("--unlike", action="append", metavar="KEY", help="less like this row; may be repeated")
    p.add_argument(
        "--weight",
        action="append",
        metavar="MODALITY=W",
        help="weight of a value in a query of several (default: 1), negative: away from it",
    )
    p.add_argument(
        "--min_precision",
        type=float,
        metavar="P",
        help="only hits of a score at which this fraction is right, e.g. 0.9; the model must be calibrated",
    )
    p.add_argument(
        "--hybrid",
        nargs="?",
        const=True,
        default=False,
        metavar="WORDS",
        help="also look for the words of --text, or WORDS",
    )
    p.add_argument("--exact", action="store_true", help="compare every vector; slower, misses none")
    p.add_argument("--json", action="store_true", help="print JSON")
    queries, rest = split_values(arguments, OWN_OPTIONS)
    options = p.parse_args(rest)
    if len(queries) > 1:
        check_modalities(options.run, [modality for modality, _ in queries], OWN_OPTIONS)
    query = dict(queries)
    if len(query) < len(queries):
        raise UsageError("each modality takes one value; give several things by --like.")
    if not query and not options.like:
        raise UsageError("give a query, by --text, --image, --graph or --MODALITY, or by --like KEY.")
    where, weights = conditions("--where", options.where or []), _weights(options.weight or [])
    p.check_paths(options)

    from multimodal.search.query import search_index

    with asking_for_json(" ".join(f"--{modality} {value}" for modality, value in queries)):
        hits = search_index(
            options.run,
            options.index,
            options.k,
            options.target,
            options.min_precision,
            where=where,
            like=options.like or [],
            unlike=options.unlike or [],
            weights=weights,
            hybrid=options.hybrid,
            exact=options.exact,
            **query,
        )
    if options.json:
        asked = query | {name: value for name in ("like", "unlike") if (value := getattr(options, name))}
        print(json.dumps({"query": asked, "hits": [hit.to_json() for hit in hits]}, indent=1))
    elif not hits and options.min_precision is not None:
        print(f"Nothing is found with a precision of {options.min_precision:g}.")
    else:
        encoding = sys.stdout.encoding or "utf-8"
        print(repr(hits).encode(encoding, "replace").decode(encoding))
    if not hits and where:
        with suppress(MultimodalError):  # the search itself has succeeded
            _explain(options.index, where)


def _explain(folder: str, where: Mapping[str, Any]) -> None:
    """Say on standard error which condition no row meets."""
    from multimodal.search.index import Index
    from multimodal.search.no_hits import explain_no_hits

    with Index.open(folder) as index:
        for sentence in explain_no_hits(index, where):
            print(sentence, file=sys.stderr)


def _weights(given: Sequence[str]) -> dict[str, float]:
    weights = {}
    for text in given:
        modality, _, number = text.partition("=")
        try:
            weights[modality] = float(number)
        except ValueError:
            raise UsageError(f"--weight {text}: a weight is MODALITY=NUMBER, like image=0.5.") from None
    return weights
