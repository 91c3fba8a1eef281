"""``multimodal evaluate``: retrieval between all pairs of modalities."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from multimodal.cli.data_options import add_data_options, parse_with_data
from multimodal.cli.options import folder, parser

KEYS = ("key", "group", "max_rejects", "options")


def run(command: str, arguments: list[str]) -> None:
    p = parser(command, "Measure retrieval between all ordered pairs of modalities of a split.")
    p.add_argument("run", metavar="RUN", help="run folder or exported model folder")
    p.add_argument("--data", help="a configuration with a `data:` section, or a table's name (default: the run's data)")
    p.add_argument("--split", help="the split to evaluate (default: the data's test split)")
    p.add_argument("--pool", metavar="SPLIT", help="search in this split, or in all rows (default: the split itself)")
    p.add_argument(
        "--baseline",
        choices=("linear",),
        help="also fit and measure a linear baseline, where modalities have features for it",
    )
    p.add_argument("--out", type=folder, help="also write evaluation.json and retrieval.png to this folder")
    p.add_argument("--json", action="store_true", help="print JSON")
    add_data_options(p, KEYS)
    options, given = parse_with_data(p, arguments, KEYS)

    import numpy as np
    from rich.console import Console

    from multimodal.cli.progress import progress
    from multimodal.core.embedder import Embedder
    from multimodal.core.errors import MultimodalError
    from multimodal.core.hardware import leave_a_core
    from multimodal.core.rejects import Rejects
    from multimodal.data.loaders import ordered_loader
    from multimodal.data.run_data import data_of
    from multimodal.data.samples import readable_rows
    from multimodal.evaluation.linear_baseline import TableRows, linear_retrieval
    from multimodal.evaluation.render import retrieval_table, save_chart
    from multimodal.evaluation.retrieval import repeated, retrieval

    leave_a_core()
    embedder = Embedder.from_pretrained(options.run)
    data = data_of(Path(options.run), options.data, given)
    split = options.split or data.test_split
    rows = data.samples.rows(split)
    modalities = [m for m in embedder.modalities if m in data.samples.modalities]
    if len(modalities) < 2:
        raise MultimodalError(
            f"The model knows {embedder.modalities}, the data have {data.samples.modalities}: no pair."
        )
    searched = None if options.pool is None else data.samples.rows(options.pool)
    wanted = rows if searched is None else np.concatenate([rows, searched])
    told = None if options.out is None else options.out / "rejects.jsonl"
    if told is not None:
        told.unlink(missing_ok=True)  # of an earlier evaluation
    rejects = Rejects(data.max_rejects, len(data.samples), told, option="--max_rejects")
    processors = {m: embedder.processors[m] for m in modalities}
    with progress("Embedding", len(wanted)) as advance:
        queries = embedder.embed_all(ordered_loader(data.samples, rows, processors, 256, rejects), advance)
        candidates = None
        if searched is not None:
            candidates = embedder.embed_all(ordered_loader(data.samples, searched, processors, 256, rejects), advance)
    results = retrieval(queries, candidates)
    baselines: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    if options.baseline:
        tables = [
            TableRows(*readable_rows(data.samples, part, processors))
            for part in (data.samples.rows(data.train_split), rows, *([] if searched is None else [searched]))
        ]
        with progress("Fitting the linear baseline", 1) as advance:
            baselines[options.baseline] = linear_retrieval(*tables, processors=processors, left_out=notes.append)
            advance(1)
    document = {
        "run": options.run,
        "split": split,
        "pool": options.pool or split,
        "seed": data.seed,
        "pairs": {pair: r.to_json() for pair, r in results.items()},
        "baselines": {name: {pair: r.to_json() for pair, r in found.items()} for name, found in baselines.items()},
    }
    place = repr(split) if options.pool is None else f"{options.pool!r}, queries of {split!r}"
    title = f"Retrieval in {place} ({options.run})"
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "evaluation.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
        save_chart(results, title, options.out / "retrieval.png")
    if options.json:
        print(json.dumps(document, indent=1))
    else:
        Console().print(retrieval_table(results, title))
        for line in repeated(queries if candidates is None else candidates):
            print(line)
        for name, found in baselines.items():
            if found:
                Console().print(retrieval_table(found, f"The {name} baseline, fitted on {data.train_split!r}"))
    if len(rejects):
        notes.append(rejects.summary())
    for note in notes:
        print(note, file=sys.stderr)
