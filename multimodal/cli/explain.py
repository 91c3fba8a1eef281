"""``multimodal explain``: why two values match."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from multimodal.cli.options import model, parser
from multimodal.cli.values import JSON_EXAMPLE, asking_for_json, check_modalities, split_values
from multimodal.core.errors import UsageError

OWN_OPTIONS = ("--out", "--json", "--help")
DESCRIPTION = f"""\
Say why a query and a candidate match: how much of their score each word of a text is worth, each patch of a picture, atom,
bond, node or edge of a graph, stroke of an outline, span of a sound, column of a row. Each part is left out alone. The first
value is the query, the second the candidate; they may be of one modality. A row may be given as JSON:
--tabular '{JSON_EXAMPLE}'."""


def run(command: str, arguments: list[str]) -> None:
    p = parser(command, DESCRIPTION)
    p.usage = (
        "multimodal explain RUN (--text T | --image FILE | --graph FILE | --MODALITY VALUE) (the same again)"
        " [--out FILE.html] [--json]"
    )
    p.add_argument("run", type=model, metavar="RUN", help="run or model folder")
    p.add_argument("--out", type=Path, metavar="FILE", help="write a page with the parts drawn (.html), or .json")
    p.add_argument("--json", action="store_true", help="print JSON: the worth of every part")
    values, rest = split_values(arguments, OWN_OPTIONS)
    options = p.parse_args(rest)
    if values:
        check_modalities(options.run, [modality for modality, _ in values], OWN_OPTIONS)
    if len(values) != 2:
        given = ", ".join(f"--{modality}" for modality, _ in values) or "none"
        raise UsageError(
            f"give two values, the query and the candidate, by --text, --image, --graph or --MODALITY; got {given}."
        )
    p.check_paths(options)

    from multimodal.evaluation.explain import explain
    from multimodal.evaluation.explanation import check_path

    if options.out is not None:
        check_path(options.out)
    with asking_for_json():
        found = explain(options.run, *({modality: value} for modality, value in values))
    if options.out is not None:
        found.save(options.out)
    if options.json:
        print(json.dumps(found.to_json(), indent=1))
        return
    encoding = sys.stdout.encoding or "utf-8"
    print(str(found).encode(encoding, "replace").decode(encoding))
