"""Bulk embedding: the rows of a table -> Parquet parts, a part at a time, resumable.

A folder of embeddings holds ``embeddings.json`` (what they are of) and
``part-00000.parquet``, ... with the columns ``key``, ``group``, ``metadata`` (JSON) and one column of vectors for each
modality, null where the row lacks it. A row of which a modality has several columns stands there once for each, a row
that cannot be read not at all, but in ``rejects.jsonl``. A part is there whole or not at all; a second run makes those
that are missing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from multimodal.core.errors import MultimodalError
from multimodal.core.progress import progress
from multimodal.core.rejects import Rejects
from multimodal.search.embedding_folder import MANIFEST, PART_ROWS, Manifest, read_manifest

BATCH_SIZE = 256  # rows that are embedded at a time; it changes the speed, never a result

if TYPE_CHECKING:
    from multimodal.core.embedder import Embedder
    from multimodal.core.embeddings import Embeddings
    from multimodal.data.samples import Samples


def embed_table(
    run: str | Path | Embedder, table: Any = None, *, out: str | Path, split: str = "all", **settings: Any
) -> Rejects:
    """Embed a table into a folder, as ``multimodal embed`` does; a second call continues what was stopped.

    Args:
        run: a run's folder, that of an exported model, or an embedder.
        table: a table's name, a configuration, or in Python a ``DataModule``, ``Samples`` or a table in memory. None: the
            run's table.
        out: the folder of embeddings; see ``embedding_folder`` for what it holds.
        split: the split to embed, or "all".
        **settings: keys of ``data:`` that replace those found (``columns``, ``key``, ``group``, ``max_rejects``, ...).

    Returns:
        The rows that cannot be read; they are left out and listed in ``rejects.jsonl``.

    Raises:
        MultimodalError: the model or table cannot be read, ``out`` holds something else, or too many rows cannot be read.
    """
    from multimodal.core.embedder import Embedder
    from multimodal.core.hardware import fast_device
    from multimodal.data.run_data import load_run_data

    embedder = run if isinstance(run, Embedder) else Embedder.from_pretrained(run).to(fast_device())
    data = load_run_data(None if isinstance(run, Embedder) else Path(run), table, settings)
    rows = data.samples.rows(split)
    with progress("Embedding", len(rows)) as advance:
        return embed_samples(
            embedder, data.samples, rows, Path(out), advance, max_rejects=data.max_rejects, option="--max_rejects"
        )


def embed_samples(
    embedder: Embedder,
    samples: Samples,
    rows: np.ndarray,
    out: Path,
    advance: Callable[[int], object] | None = None,
    part_rows: int = PART_ROWS,
    batch_size: int = BATCH_SIZE,
    max_rejects: float = 0.01,
    option: str = "max_rejects",
) -> Rejects:
    """Embed rows of a table into the folder ``out``.

    Args:
        embedder: its modalities that the table has are embedded.
        rows: ``(r,)`` row numbers.
        out: a new or empty folder, or one where the same work was begun.
        advance: called with the number of rows that are done, a batch or a part of an earlier run at a time.
        max_rejects: the part of the table's rows, embedded here or not, that may be unreadable.
        option: what ``max_rejects`` is called where a user sets it, for the error.

    Returns:
        The rows that cannot be read; they are left out and stand in ``rejects.jsonl``.

    Raises:
        MultimodalError: ``out`` holds something else, or too many rows cannot be read.
    """
    from multimodal.data.loaders import ordered_loader

    modalities = [m for m in embedder.modalities if m in samples.modalities]
    if not modalities:
        raise MultimodalError(f"The model knows {embedder.modalities}, the table only {samples.modalities}.")
    if not len(rows):
        raise MultimodalError("There are no rows to embed.")
    digest = sha256(np.ascontiguousarray(rows, dtype=np.int64).tobytes()).hexdigest()
    read = samples.settings, samples.fingerprint
    manifest = Manifest(embedder.fingerprint, embedder.dim, modalities, *read, len(rows), digest, part_rows)
    _write_or_check_manifest(manifest, out)
    rejects = Rejects(max_rejects, len(samples), out / "rejects.jsonl", samples.key_of, option)
    by_number = samples.keyed_by_number()  # so that the keys tell which row a vector is of
    for number, part in enumerate(manifest.parts):
        of_part = rows[number * part_rows : (number + 1) * part_rows]
        if not (out / part).exists():
            processors = {m: embedder.processors[m] for m in modalities}
            rejects.forget(of_part.tolist())  # of an earlier try
            loader = ordered_loader(by_number, of_part, processors, batch_size, rejects)
            table = _part_table(embedder.embed_all(loader, advance), samples, modalities, embedder.dim)
            pq.write_table(table, out / f"{part}.new")
            os.replace(out / f"{part}.new", out / part)
        elif advance is not None:
            advance(len(of_part))
    return rejects


def embed_in_memory(
    embedder: Embedder, samples: Samples, rows: np.ndarray, max_rejects: float
) -> tuple[pa.Table, list[str]]:
    """Rows of a table as one part of embeddings, and the modalities that it has.

    Args:
        embedder: its modalities that the table has are embedded.
        samples: the table.
        rows: ``(r,)`` row numbers.
        max_rejects: the fraction of the table's rows that may be unreadable.

    Raises:
        MultimodalError: the table has none of the model's modalities, or too many rows cannot be read.
    """
    from multimodal.data.loaders import ordered_loader

    modalities = [m for m in embedder.modalities if m in samples.modalities]
    if not modalities:
        raise MultimodalError(f"The model knows {embedder.modalities}, the table only {samples.modalities}.")
    processors = {m: embedder.processors[m] for m in modalities}
    rejects = Rejects(max_rejects, len(samples), key_of=samples.key_of, option="max_rejects")
    loader = ordered_loader(samples.keyed_by_number(), rows, processors, BATCH_SIZE, rejects)
    with progress("Embedding", len(rows)) as advance:
        return _part_table(embedder.embed_all(loader, advance), samples, modalities, embedder.dim), modalities


def _part_table(embeddings: Embeddings, samples: Samples, modalities: Sequence[str], dim: int) -> pa.Table:
    rows = [int(key) for key in embeddings.keys]
    columns: dict[str, Any] = {
        "key": [samples.key_of(row) for row in rows],
        "group": [samples.group_of(row) for row in rows],
        "metadata": [json.dumps(samples.metadata(row), ensure_ascii=False) for row in rows],
    }
    for m in modalities:
        vectors, missing = np.zeros((len(rows), dim), np.float32), np.ones(len(rows), bool)
        if m in embeddings.vectors:
            at = embeddings.rows[m].numpy()
            vectors[at], missing[at] = embeddings.vectors[m].numpy(), False
        columns[m] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim, mask=pa.array(missing))
    return pa.table(columns)


def _write_or_check_manifest(manifest: Manifest, out: Path) -> None:
    if (out / MANIFEST).is_file():
        if read_manifest(out) != manifest:
            raise MultimodalError(
                f"{out} holds embeddings of another model, table or split, or of the table as it was; remove it or choose"
                " another folder."
            )
    else:
        if out.exists() and not out.is_dir():
            raise MultimodalError(f"{out} is a file; name a folder.")
        if out.exists() and any(out.iterdir()):
            raise MultimodalError(f"{out} is not empty and holds no embeddings; choose another folder.")
        out.mkdir(parents=True, exist_ok=True)
        new = out / f"{MANIFEST}.new"
        new.write_text(json.dumps(asdict(manifest), indent=1), encoding="utf-8")
        os.replace(new, out / MANIFEST)
