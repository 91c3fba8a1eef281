"""``multimodal upgrade``: a new model for an index, without downtime."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from multimodal.cli.options import fraction, index_folder, model, parser, table, whole_number
from multimodal.core.errors import MultimodalError, UsageError

ABOVE_ZERO = whole_number("a whole number above 0", 10**7)
DESCRIPTION = """\
Embed the rows of an index with a new model, build the new index next to the old one, and put it in the place of the old one
in one step. A server that has the index open answers from the old one until then, and continues with the new model. The same
command continues what was stopped. The former index is kept: --rollback puts it back."""


def run(command: str, arguments: list[str]) -> None:
    p = parser(command, DESCRIPTION)
    p.add_argument("index", type=index_folder, metavar="INDEX", help="index folder")
    p.add_argument(
        "run", type=model, metavar="NEWRUN", nargs="?", help="run or model folder that takes the old one's place"
    )
    p.add_argument(
        "table",
        type=table,
        metavar="TABLE",
        nargs="?",
        help="table of the index's rows (default: the one of the index)",
    )
    p.add_argument(
        "--rollback",
        action="store_true",
        help="put the former index back; NEWRUN is then the former model, needed if rows were added since",
    )
    p.add_argument(
        "--processes", type=ABOVE_ZERO, metavar="N", help="embed in N processes (default: one for each GPU, else one)"
    )
    p.add_argument("--canaries", metavar="FILE", help="queries that the new index must answer, see multimodal canary")
    p.add_argument(
        "--allow",
        type=fraction,
        default=0.0,
        metavar="FRACTION",
        help="the fraction of the canaries that may fail (default: 0)",
    )
    p.add_argument(
        "--map",
        choices=("measure", "use"),
        help="before anything is embedded, fit a map from the new model's queries to the old index: measure prints what it"
        " finds and stops; use lets a running server answer with it until the new index is there",
    )
    p.add_argument(
        "--old", type=model, metavar="RUN", help="for --map: the index's model (default: the one that it records)"
    )
    p.add_argument(
        "--min_recall",
        type=fraction,
        default=0.9,
        metavar="FRACTION",
        help="for --map: the map is refused if it finds less than this fraction of what the old model does (default: 0.9)",
    )
    p.add_argument(
        "--anchors",
        type=ABOVE_ZERO,
        default=2000,
        metavar="N",
        help="for --map: rows that both models encode (default: 2000)",
    )
    p.add_argument("--json", action="store_true", help="print JSON")
    options = p.parse_args(arguments)
    if options.rollback and (options.table or options.canaries or options.map):
        raise UsageError("--rollback embeds no table, asks no canaries and fits no map.")
    if not options.rollback and options.run is None:
        raise UsageError("Name the new model: multimodal upgrade INDEX NEWRUN.")
    p.check_paths(options)

    from multimodal.monitor.upgrade import rollback_index, upgrade_index

    if options.map and not _mapped(options):
        return
    if options.rollback:
        done = rollback_index(options.index, options.run)
    else:
        done = upgrade_index(
            options.index,
            options.run,
            options.table,
            processes=options.processes,
            canaries=options.canaries,
            allow=options.allow,
        )
    print(json.dumps(asdict(done)) if options.json else done)


def _mapped(options: argparse.Namespace) -> bool:
    """Fit the map and print what it finds; return whether the upgrade follows."""
    from multimodal.monitor.map_index import map_index

    use = options.map == "use"
    report = map_index(
        options.index,
        options.run,
        options.table,
        old=options.old,
        anchors=options.anchors,
        min_recall=options.min_recall,
        use=use,
    )
    print(json.dumps(report.to_json()) if options.json else report, flush=True)
    if not report.accepted:
        refused = f"The map is refused: queries of {', '.join(report.refused)} find less than {options.min_recall:g} of"
        refused += " what the old model finds."
        if not use:
            raise MultimodalError(refused)
        print(f"{refused} The old model answers until the new index is there.", file=sys.stderr)
    return use
