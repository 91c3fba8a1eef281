"""``multimodal search``: one query against an index."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from multimodal.cli.main import parser


def run(command: str, arguments: list[str]) -> None:
    p = parser(
        command,
        "Search an index with a value of any modality of the model: --text, --image, ... --MODALITY VALUE.",
    )
    p.add_argument("run", metavar="RUN", help="run folder or exported model folder")
    p.add_argument("index", metavar="INDEX", help="index folder")
    p.add_argument("--text", help="a text")
    p.add_argument("--image", metavar="FILE", help="a picture")
    p.add_argument("--graph", metavar="FILE", help="a graph as JSON")
    p.add_argument("-k", type=int, default=10, help="how many hits (default: 10)")
    p.add_argument("--target", metavar="MODALITY", help="find only things by this modality, e.g. image")
    p.add_argument("--json", action="store_true", help="print JSON")
    options, rest = p.parse_known_args(arguments)
    modality, value = _query(p, options, rest)

    from multimodal.core.embedder import Embedder
    from multimodal.core.pretrained import read_description
    from multimodal.search.index import Index

    index = Index.open(options.index)
    index.check_model(read_description(Path(options.run))["fingerprint"])
    embedder = Embedder.from_pretrained(options.run, modalities=[modality])
    hits = index.search(embedder.encode(256, **{modality: [value]}), options.k, options.target)[0]
    if options.json:
        print(
            json.dumps({"query": {modality: value}, "hits": [vars(hit) for hit in hits]}, ensure_ascii=False, indent=1)
        )
        return
    for hit in hits:
        described = {name: str(v) for name, v in hit.metadata.items()}
        print(f"{hit.score:6.3f}  {_shown(described)}  [{hit.modality} {hit.key}]")


def _query(p: argparse.ArgumentParser, options: argparse.Namespace, rest: list[str]) -> tuple[str, str]:
    """The one modality and value asked for, by a listed option or ``--MODALITY VALUE``."""
    given = {m: v for m in ("text", "image", "graph") if (v := getattr(options, m)) is not None}
    while rest:
        option, *rest = rest
        name, has_value, value = option.removeprefix("--").partition("=")
        if not option.startswith("--") or not name.isidentifier() or not (has_value or rest):
            p.error(f"unrecognized argument: {option}")
        if not has_value:
            value, *rest = rest
        given[name] = value
    if len(given) != 1:
        p.error(f"give one query, by one of --text, --image, --graph or --MODALITY; got {sorted(given) or 'none'}")
    return next(iter(given.items()))


def _shown(metadata: dict[str, str]) -> str:
    """A line for people: the character, if the hit is one and the terminal can show it, then the name."""
    character, name = metadata.get("character"), metadata.get("name", "")
    encoding = sys.stdout.encoding or "ascii"
    if character and sys.stdout.isatty() and character.encode(encoding, "ignore").decode(encoding) == character:
        return f"{character}  {name}"
    return name
