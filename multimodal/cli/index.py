"""``multimodal index``: from embeddings to an index."""

from __future__ import annotations

import json
from pathlib import Path

from multimodal.cli.options import folder, parser


def run(command: str, arguments: list[str]) -> None:
    p = parser(command, "Build a search index from the embeddings that `multimodal embed` made.")
    p.add_argument("embeddings", metavar="EMBEDDINGS", type=Path, help="folder of embeddings")
    p.add_argument("--out", type=folder, required=True, help="folder of the index; an index there is replaced")
    p.add_argument(
        "--engine",
        default="qdrant-edge",
        help="qdrant-edge: fast for millions of rows, can be changed (default); exact: compares every vector; or a server:"
        " qdrant+http://HOST:6333/COLLECTION, milvus+http://HOST:19530/COLLECTION",
    )
    p.add_argument("--quantization", metavar="KIND", help="int8 or binary: search compressed vectors first")
    p.add_argument("--dim", type=int, metavar="N", help="search reduced vectors of this width first")
    p.add_argument(
        "--reduction",
        default="prefix",
        help="how they are reduced: prefix (default; for models trained with matryoshka_dims), pca or svd",
    )
    p.add_argument("--json", action="store_true", help="print JSON")
    options = p.parse_args(arguments)

    from multimodal.search.index import Index

    index = Index.build(
        options.embeddings,
        options.out,
        engine=options.engine,
        quantization=options.quantization,
        dim=options.dim,
        reduction=options.reduction,
    )
    if options.json:
        print(
            json.dumps(
                {"out": str(options.out), "vectors": len(index), "dim": index.dim, "modalities": index.modalities}
            )
        )
    else:
        print(f"{len(index):,} vectors of {', '.join(index.modalities)}, {index.dim} wide: {options.out}")
