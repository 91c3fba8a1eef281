"""``multimodal index``: from embeddings to an index."""

from __future__ import annotations

import json
from pathlib import Path

from multimodal.cli.options import folder, parser


def run(command: str, arguments: list[str]) -> None:
    p = parser(command, "Build a search index from the embeddings that `multimodal embed` made.")
    p.add_argument("embeddings", metavar="EMBEDDINGS", type=Path, help="folder of embeddings")
    p.add_argument("--out", type=folder, required=True, help="folder of the index; an index there is replaced")
    p.add_argument("--json", action="store_true", help="print JSON")
    options = p.parse_args(arguments)

    from multimodal.search.index import Index

    index = Index.build(options.embeddings, options.out)
    if options.json:
        print(
            json.dumps(
                {"out": str(options.out), "vectors": len(index), "dim": index.dim, "modalities": index.modalities}
            )
        )
    else:
        print(f"{len(index):,} vectors of {', '.join(index.modalities)}, {index.dim} wide: {options.out}")
