"""Bulk embedding of a table's rows into Parquet parts; resumable, in several processes, and again for changed rows only.

A folder of embeddings contains ``embeddings.json`` (the manifest) and ``part-00000.parquet``, ... with the columns ``key``,
``group``, ``metadata`` (JSON), ``digest`` and one column of vectors for each modality, null where the row has no such value. A
row with alternative columns for a modality is stored once for each alternative. Rows that cannot be read are left out and
listed in ``rejects.jsonl``. A part is written atomically, and its digest is added to ``multimodal.sha256``; a second run
writes the parts that are missing or damaged. If the table has changed, vectors of unchanged rows are taken over, see
``embed_update``. One process at a time writes a folder, with the processes that it starts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pyarrow as pa

from multimodal.core.errors import MultimodalError, UsageError, check_names
from multimodal.core.files import check_folder
from multimodal.core.folder_lock import write_lock
from multimodal.core.progress import progress
from multimodal.core.rejects import Reject, Rejects
from multimodal.core.system_errors import writing
from multimodal.search.embedding_folder import (
    MANIFEST,
    PART_ROWS,
    Manifest,
    read_manifest,
)
from multimodal.search.stored_vectors import DTYPES, Dtype

if TYPE_CHECKING:
    from multimodal.core.embedder import Embedder, Precision
    from multimodal.data.samples import Samples

MIN_PART_ROWS = 512
PARTS_PER_PROCESS = 8  # at least, where there are enough rows: so that processes end at about the same time


@dataclass(frozen=True)
class Embedded:
    """Outcome of ``embed_table``.

    Attributes:
        rows: rows of the table that are in the folder.
        with_alternatives: rows of the parts: a row of the table counts once for each of its alternatives.
        rows_before: rows, readable or not, of parts that an earlier call had finished.
        unchanged: those of ``with_alternatives`` whose vectors were taken over, as the table has changed elsewhere.
        rejects: the rows that cannot be read.

    Examples:
        >>> Embedded(8, with_alternatives=10, rows_before=0, unchanged=0, rejects=Rejects(0.01, 8))
        8 rows (10 with alternatives)
    """

    rows: int
    with_alternatives: int
    rows_before: int
    unchanged: int
    rejects: Rejects

    def __repr__(self) -> str:
        alternatives = f" ({self.with_alternatives:,} with alternatives)" if self.with_alternatives > self.rows else ""
        return f"{self.rows:,} rows{alternatives}"


def embed_table(
    run: str | Path | Embedder,
    table: Any = None,
    *,
    out: str | Path,
    split: str = "all",
    processes: int | None = None,
    dtype: Dtype = "float32",
    precision: Precision | None = None,
    metadata: Sequence[str] | None = None,
    ray: str | None = None,
    **settings: Any,
) -> Embedded:
    """Embed a table into a folder, as ``multimodal embed`` does.

    A second call continues an interrupted one. If the table has changed, it embeds the changed rows only; the folder holds the
    old state until the new one is whole.

    Args:
        run: folder of a run or of an exported model, or an embedder.
        table: a table's name, a configuration, or in Python a ``DataModule``, ``Samples`` or a table in memory. None: the
            run's table.
        out: the folder of embeddings; its contents are described at the top of this module.
        split: the split to embed, or "all".
        processes: processes that embed parts at the same time, each on a GPU or on its share of the cores. A program that asks
            for several needs ``if __name__ == "__main__":``, as they import it. None: one for each GPU, or one.
        dtype: of the numbers of the vectors: "float32", "float16" (half of the space) or "int8" (a quarter).
        precision: see ``Embedder.encode``. None: that of the folder; of a new one "bfloat16", where the processor or GPU is
            fast at it, else "float32".
        metadata: columns that describe a row, for the column ``metadata``. None: those of texts and numbers.
        ray: address of a Ray cluster that embeds, in ``processes`` actors, or "local". None: this machine. Its machines must
            see the table at the same path. The extra ``ray`` installs it.
        **settings: keys of ``data:`` that replace the configured ones (``columns``, ``key``, ``group``, ``max_rejects``, ...).

    Returns:
        Numbers of rows, and those that cannot be read; these are left out and listed in ``rejects.jsonl``.

    Raises:
        UsageError: ``out`` is a file, an embedder is given without a table, the table has no such column, or two rows have
            the same key.
        MultimodalError: the model or table cannot be read, ``out`` contains something else or is being written by another
            process, too many rows cannot be read, or a process was ended.
    """
    check_folder(out)
    from multimodal.core.embedder import Embedder
    from multimodal.core.hardware import fast_device
    from multimodal.data.run_data import SETTINGS, load_run_data
    from multimodal.search.embed_processes import default_processes

    check_names("embed_table", settings, [*SETTINGS, "out", "processes", "dtype", "precision", "metadata", "ray"])
    out = Path(out)
    with write_lock(out):  # before the model is loaded, so that a second command is refused at once
        embedder = run if isinstance(run, Embedder) else Embedder.from_pretrained(run).to(fast_device())
        data = load_run_data(None if isinstance(run, Embedder) else Path(run), table, settings)
        data.check_key()
        if processes is None and ray is None:
            processes = 1 if isinstance(run, Embedder) else default_processes()
        rows = data.samples.rows(split)
        with progress("Embedding", len(rows)) as advance:
            return embed_samples(
                embedder,
                data.samples,
                rows,
                out,
                advance,
                max_rejects=data.max_rejects,
                processes=processes,
                dtype=dtype,
                precision=precision or usual_precision(out),
                metadata=metadata,
                ray=ray,
            )


def embed_samples(
    embedder: Embedder,
    samples: Samples,
    rows: np.ndarray,
    out: Path,
    advance: Callable[[int], object] | None = None,
    *,
    part_rows: int | None = None,
    batch_size: int | None = None,
    max_rejects: float = 0.01,
    processes: int | None = 1,
    dtype: Dtype = "float32",
    precision: Precision = "float32",
    metadata: Sequence[str] | None = None,
    ray: str | None = None,
) -> Embedded:
    """Embed rows of a table into the folder ``out``.

    Args:
        embedder: the model; the modalities that it shares with the table are embedded.
        samples: the table.
        rows: ``(r,)`` row numbers.
        out: a new or empty folder, one in which the same work was started, or one of this table before it changed.
        advance: called with the number of rows done, after each group of rows and for each part of an earlier run.
        part_rows: rows in a part. None: as in the folder; in a new one 8,192, or fewer for several processes.
        batch_size: see ``Embedder.encode``; affects the speed, not the results.
        max_rejects: fraction of all rows of the table, embedded here or not, that may be unreadable.
        processes, dtype, precision, metadata, ray: see ``embed_table``.

    Returns:
        Numbers of rows, and those that cannot be read; these are left out and listed in ``rejects.jsonl``.

    Raises:
        UsageError: a setting is out of range, the table has no such column, or two rows have the same key.
        MultimodalError: ``out`` contains something else or is being written by another process, too many rows cannot be
            read, or a process was ended.
    """
    from multimodal.core.embedder import Precision
    from multimodal.data.keys import check_unique_keys
    from multimodal.search.embed_parts import PartSettings, embedded_modalities
    from multimodal.search.embed_processes import Work
    from multimodal.search.embed_update import REJECTS, open_state, replace_state
    from multimodal.search.write_parts import write_parts

    check_folder(out)
    for name, given, known in (("dtype", dtype, DTYPES), ("precision", precision, get_args(Precision))):
        if given not in known:
            raise UsageError(f"{name} is one of {', '.join(known)}, not {given!r}.")
    if processes is not None and processes < 1:
        raise UsageError(f"processes must be at least 1, got {processes}.")
    samples.check_columns(metadata or ())
    settings = PartSettings(embedded_modalities(embedder, samples), dtype, precision, metadata, batch_size)
    if not len(rows):
        raise MultimodalError("There are no rows to embed.")
    check_unique_keys(samples, rows)
    with write_lock(out), writing(out):
        manifest = Manifest(
            fingerprint=embedder.fingerprint,
            dim=embedder.dim,
            modalities=list(settings.modalities),
            data=samples.settings,
            table=samples.fingerprint,
            rows=len(rows),
            rows_digest=sha256(np.ascontiguousarray(rows, dtype=np.int64).data).hexdigest(),
            part_rows=part_rows or _usual_part_rows(out, len(rows), processes),
            dtype=dtype,
            precision=precision,
            metadata=None if metadata is None else list(metadata),
        )
        folder, earlier = open_state(out, manifest)
        rejects = Rejects(max_rejects, len(samples), folder / REJECTS)
        work = Work(embedder, samples, settings, folder, earlier)
        written = write_parts(work, manifest, rows, rejects, advance or (lambda _: None), processes, ray)
        if folder != out:
            replace_state(out)
            rejects.path = out / REJECTS
    return Embedded(len(rows) - len(rejects), written.part_rows, written.rows_before, written.unchanged, rejects)


def embed_in_memory(
    embedder: Embedder, samples: Samples, rows: np.ndarray, max_rejects: float
) -> tuple[Rejects, pa.Table]:
    """Embed rows of a table in memory.

    Args:
        embedder: the model; the modalities that it shares with the table are embedded.
        samples: the table.
        rows: ``(r,)`` row numbers.
        max_rejects: fraction of the table's rows that may be unreadable.

    Returns:
        The rows that cannot be read, and the embeddings with the columns of a part.

    Raises:
        MultimodalError: the table has none of the model's modalities, or too many rows cannot be read.
    """
    from multimodal.search.embed_parts import PartEmbedder, PartSettings, embedded_modalities

    modalities = embedded_modalities(embedder, samples)
    rejects = Rejects(max_rejects, len(samples))
    with progress("Embedding", len(rows)) as advance:

        def on_read(read: int, found: Sequence[Reject]) -> None:
            rejects.add(found, seen=read)
            advance(read)

        part = PartEmbedder(embedder, samples, PartSettings(modalities)).embed(rows, on_read)
    return rejects, part.table


def usual_precision(out: Path) -> Precision:
    """Return the precision of the embeddings in a folder; of a new one, the fastest of this machine.

    Args:
        out: the folder.
    """
    from multimodal.core.hardware import fast_precision

    if (out / MANIFEST).is_file():
        return "bfloat16" if read_manifest(out).precision == "bfloat16" else "float32"
    return "bfloat16" if fast_precision() == "bf16-mixed" else "float32"


def _usual_part_rows(out: Path, rows: int, processes: int | None) -> int:
    if (out / MANIFEST).is_file():
        return read_manifest(out).part_rows
    if processes in (1, None):
        return PART_ROWS
    return min(PART_ROWS, max(MIN_PART_ROWS, -(-rows // (PARTS_PER_PROCESS * processes))))
