"""Bulk embedding of a table's rows into Parquet parts; resumable.

A folder of embeddings contains ``embeddings.json`` (the manifest) and ``part-00000.parquet``, ... with the columns ``key``,
``group``, ``metadata`` (JSON) and one column of vectors for each modality, null where the row has no such value. A row
with alternative columns for a modality is stored once for each alternative. Rows that cannot be read are left out and listed
in ``rejects.jsonl``. A part is written atomically, and its digest is added to ``multimodal.sha256``; a second run writes the
parts that are missing or damaged. One process at a time writes a folder.
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

from multimodal.core.digests import read_sums, record_sum, with_digest
from multimodal.core.errors import MultimodalError, check_names
from multimodal.core.files import check_folder
from multimodal.core.folder_lock import LOCK_FILE, write_lock
from multimodal.core.progress import progress
from multimodal.core.rejects import Rejects
from multimodal.core.system_errors import writing
from multimodal.search.embedding_folder import (
    MANIFEST,
    PART_ROWS,
    Manifest,
    is_finished,
    read_manifest,
)

BATCH_SIZE = 256  # rows embedded at a time; affects the speed, not the results

if TYPE_CHECKING:
    from multimodal.core.embedder import Embedder
    from multimodal.core.embeddings import Embeddings
    from multimodal.data.samples import Samples


def embed_table(
    run: str | Path | Embedder, table: Any = None, *, out: str | Path, split: str = "all", **settings: Any
) -> Rejects:
    """Embed a table into a folder, as ``multimodal embed`` does; a second call continues an interrupted one.

    Args:
        run: folder of a run or of an exported model, or an embedder.
        table: a table's name, a configuration, or in Python a ``DataModule``, ``Samples`` or a table in memory. None: the
            run's table.
        out: the folder of embeddings; its contents are described at the top of this module.
        split: the split to embed, or "all".
        **settings: keys of ``data:`` that replace the configured ones (``columns``, ``key``, ``group``, ``max_rejects``, ...).

    Returns:
        The rows that cannot be read; they are left out and listed in ``rejects.jsonl``.

    Raises:
        UsageError: ``out`` is a file, or an embedder is given without a table.
        MultimodalError: the model or table cannot be read, ``out`` contains something else or is being written by another
            process, or too many rows cannot be read.
    """
    check_folder(out)
    from multimodal.core.embedder import Embedder
    from multimodal.core.hardware import fast_device
    from multimodal.data.run_data import SETTINGS, load_run_data

    check_names("embed_table", settings, [*SETTINGS, "out"])
    with write_lock(out):  # before the model is loaded, so that a second command is refused at once
        embedder = run if isinstance(run, Embedder) else Embedder.from_pretrained(run).to(fast_device())
        data = load_run_data(None if isinstance(run, Embedder) else Path(run), table, settings)
        rows = data.samples.rows(split)
        with progress("Embedding", len(rows)) as advance:
            return embed_samples(embedder, data.samples, rows, Path(out), advance, max_rejects=data.max_rejects)


def embed_samples(
    embedder: Embedder,
    samples: Samples,
    rows: np.ndarray,
    out: Path,
    advance: Callable[[int], object] | None = None,
    part_rows: int = PART_ROWS,
    batch_size: int = BATCH_SIZE,
    max_rejects: float = 0.01,
) -> Rejects:
    """Embed rows of a table into the folder ``out``.

    Args:
        embedder: the model; the modalities that it shares with the table are embedded.
        samples: the table.
        rows: ``(r,)`` row numbers.
        out: a new or empty folder, or one in which the same work was started.
        advance: called with the number of rows done, after each batch and for each part of an earlier run.
        part_rows: rows in a part.
        batch_size: rows embedded at a time; affects the speed, not the results.
        max_rejects: fraction of all rows of the table, embedded here or not, that may be unreadable.

    Returns:
        The rows that cannot be read; they are left out and listed in ``rejects.jsonl``.

    Raises:
        MultimodalError: ``out`` contains something else or is being written by another process, or too many rows cannot be
            read.
    """
    check_folder(out)
    with write_lock(out), writing(out):
        return _embed_samples(embedder, samples, rows, out, advance, part_rows, batch_size, max_rejects)


def _embed_samples(
    embedder: Embedder,
    samples: Samples,
    rows: np.ndarray,
    out: Path,
    advance: Callable[[int], object] | None,
    part_rows: int,
    batch_size: int,
    max_rejects: float,
) -> Rejects:
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
    for unfinished in out.glob("*.new"):  # of a killed process, as this one holds the lock
        unfinished.unlink()
    rejects = Rejects(max_rejects, len(samples), out / "rejects.jsonl", samples.key_of)
    samples_by_row_number = samples.keyed_by_number()  # the key of an embedding is then its row number
    digests = read_sums(out)
    for number, part in enumerate(manifest.parts):
        rows_of_part = rows[number * part_rows : (number + 1) * part_rows]
        finished = is_finished(out, number, manifest, digests)
        if not finished:
            processors = {m: embedder.processors[m] for m in modalities}
            rejects.forget(rows_of_part.tolist())  # from an earlier run
            loader = ordered_loader(samples_by_row_number, rows_of_part, processors, batch_size, rejects)
            table = _part_table(embedder.embed_all(loader, advance), samples, modalities, embedder.dim)
            pq.write_table(table, out / f"{part}.new")
            os.replace(out / f"{part}.new", out / part)
        elif advance is not None:
            advance(len(rows_of_part))
        if not finished or part not in digests:
            record_sum(out, part, digests)
    return rejects


def embed_in_memory(
    embedder: Embedder, samples: Samples, rows: np.ndarray, max_rejects: float
) -> tuple[pa.Table, list[str]]:
    """Embed rows of a table in memory.

    Args:
        embedder: the model; the modalities that it shares with the table are embedded.
        samples: the table.
        rows: ``(r,)`` row numbers.
        max_rejects: fraction of the table's rows that may be unreadable.

    Returns:
        The embeddings with the columns of a part, and their modalities.

    Raises:
        MultimodalError: the table has none of the model's modalities, or too many rows cannot be read.
    """
    from multimodal.data.loaders import ordered_loader

    modalities = [m for m in embedder.modalities if m in samples.modalities]
    if not modalities:
        raise MultimodalError(f"The model knows {embedder.modalities}, the table only {samples.modalities}.")
    processors = {m: embedder.processors[m] for m in modalities}
    rejects = Rejects(max_rejects, len(samples), key_of=samples.key_of)
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
            positions = embeddings.rows[m].numpy()
            vectors[positions], missing[positions] = embeddings.vectors[m].numpy(), False
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
        new = out / f"{MANIFEST}.new"  # which a killed process may have left
        if any(path.name not in (LOCK_FILE, new.name) for path in out.iterdir()):
            raise MultimodalError(f"{out} is not empty and holds no embeddings; choose another folder.")
        new.write_text(json.dumps(with_digest(asdict(manifest)), indent=1), encoding="utf-8")
        os.replace(new, out / MANIFEST)
