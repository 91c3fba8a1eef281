"""``multimodal search``: one query against an index."""

from __future__ import annotations

import json
import sys
from contextlib import suppress

from multimodal.cli.options import parser
from multimodal.core.errors import MultimodalError, Unreadable, UsageError

JSON_EXAMPLE = '{"category": "mugs"}'
OWN_OPTIONS = ("--k", "--target", "--json", "--help")


def run(command: str, arguments: list[str]) -> None:
    p = parser(
        command,
        "Search an index with a value of any modality that the model knows. A row of numbers and categories, or a graph, may\n"
        f"be given as JSON: --tabular '{JSON_EXAMPLE}'.",
    )
    p.usage = (
        "multimodal search RUN INDEX (--text T | --image FILE | --graph FILE | --MODALITY VALUE)"
        " [-k 10] [--target MODALITY] [--json]"
    )
    p.add_argument("run", metavar="RUN", help="run or model folder")
    p.add_argument("index", metavar="INDEX", help="index folder")
    p.add_argument("-k", "--k", type=int, default=10, help="how many hits (default: 10)")
    p.add_argument("--target", metavar="MODALITY", help="search the vectors of this modality alone, e.g. image")
    p.add_argument("--json", action="store_true", help="print JSON")
    queries, rest = _split_queries(arguments)
    options = p.parse_args(rest)
    if len(queries) > 1:
        _check_modalities(options.run, [modality for modality, _ in queries])
    if len(queries) != 1:
        given = ", ".join(f"--{modality}" for modality, _ in queries) or "none"
        raise UsageError(f"give one query, by --text, --image, --graph or --MODALITY; got {given}.")
    ((modality, value),) = queries

    from multimodal.search.query import search_index

    try:
        hits = search_index(options.run, options.index, options.k, options.target, **{modality: value})
    except MultimodalError as error:
        cause = error.__context__  # encode shows one traceback only
        if not isinstance(cause, Unreadable) or cause.reason != "wrong type":  # what is typed here is a text
            raise
        raise MultimodalError(f"--{modality} {value}: {cause} Give JSON, like '{JSON_EXAMPLE}'.") from error
    if options.json:
        print(json.dumps({"query": {modality: value}, "hits": [hit.to_json() for hit in hits]}, indent=1))
        return
    encoding = sys.stdout.encoding or "utf-8"
    print(repr(hits).encode(encoding, "replace").decode(encoding))


def _check_modalities(run: str, names: list[str]) -> None:
    """Check, if several options may be queries, that each is a modality of the model: another is misspelled."""
    from pathlib import Path

    from multimodal.core.errors import suggest
    from multimodal.core.model_folder import read_description

    known: list[str] = names  # where the model cannot be read, as the error about the number of queries comes first
    with suppress(MultimodalError):
        known = list(read_description(Path(run))["encoders"])
    for name in names:
        if name not in known:
            raise UsageError(
                f"there is no option --{name}.{suggest(name, [*known, *(o.removeprefix('--') for o in OWN_OPTIONS)])}"
            )


def _split_queries(arguments: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """The ``--MODALITY VALUE`` and ``--MODALITY=VALUE`` among the arguments, and the other arguments.

    Raises:
        UsageError: a value is missing, or an option of the command is abbreviated.
    """
    queries, rest = [], []
    remaining = iter(arguments)
    for argument in remaining:
        name, has_value, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or f"--{name}" in OWN_OPTIONS:
            rest.append(argument)
            continue
        in_full = [option for option in OWN_OPTIONS if name and option.startswith(argument)]
        if in_full:  # without this, --targ image would be a search for the modality "targ"
            raise UsageError(f"write {argument} in full: {in_full[0]}. A modality of this name takes {argument}=VALUE.")
        queried = value if has_value else next(remaining, None)
        if queried is None or (queried.startswith("--") and not has_value):
            raise UsageError(f"{argument} takes a value; one that begins with -- is written {argument}=VALUE.")
        queries.append((name, queried))
    return queries, rest
