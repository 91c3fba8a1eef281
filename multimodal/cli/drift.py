"""``multimodal drift``: do two sets of embeddings come from one population?"""

from __future__ import annotations

import json

from multimodal.cli.options import folder, fraction, parser
from multimodal.core.errors import MultimodalError

DESCRIPTION = """\
Compare two sets of vectors of one model, and say whether they differ by more than chance: one p-value, the modalities and
measures that show it, the share of inputs outside the reference, and the rows that fit least. Each set is a folder of
embeddings, of an index or of a server's log of queries, or with --model, a table. Where nothing has changed, at most a
fraction --alpha of such comparisons say that it has. With --fail, the exit code is then 1."""


def run(command: str, arguments: list[str]) -> None:
    p = parser(command, DESCRIPTION)
    p.add_argument("reference", metavar="REFERENCE", help="folder of embeddings, index or log of queries, or a table")
    p.add_argument("current", metavar="CURRENT", help="the same, of what is to be watched")
    p.add_argument(
        "--model", metavar="RUN", help="run or model folder, which embeds tables; also shows rows on the page"
    )
    p.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="COLUMN",
        help="also compare the rows of each value of this column; may be repeated",
    )
    p.add_argument(
        "--alpha", type=fraction, default=0.05, help="the fraction of false alarms that is allowed (default: 0.05)"
    )
    p.add_argument(
        "--max_rows", type=int, default=1000, metavar="N", help="rows of each set that are compared (default: 1000)"
    )
    p.add_argument("--seed", type=int, default=0, help="of the choice of rows and the permutations (default: 0)")
    p.add_argument("--out", type=folder, metavar="DIR", help="write drift.json and the page drift.html to this folder")
    p.add_argument("--fail", action="store_true", help="end with exit code 1 if the sets differ")
    p.add_argument("--json", action="store_true", help="print JSON")
    options = p.parse_args(arguments)

    from multimodal.monitor.drift import drift

    result = drift(
        options.reference,
        options.current,
        options.model,
        where=options.where,
        alpha=options.alpha,
        max_rows=options.max_rows,
        seed=options.seed,
        out=options.out,
    )
    print(json.dumps(result.to_json(), indent=1) if options.json else result)
    if options.fail and result.drifted:
        raise MultimodalError(f"{options.current} has drifted (p = {result.p_value:.3g}).")
