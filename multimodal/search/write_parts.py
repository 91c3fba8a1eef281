"""The parts of a folder of embeddings that are missing or damaged are written, in this process or in several."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq

from multimodal.core.digests import read_sums, record_sum
from multimodal.core.rejects import Reject, Rejects
from multimodal.search.embed_processes import Work, embed_in_processes, embed_in_this_process
from multimodal.search.embed_ray import embed_on_ray
from multimodal.search.embedding_folder import Manifest, finished_parts, part_name


@dataclass
class Written:
    """Counts of a folder of embeddings.

    Attributes:
        part_rows: rows of its parts; a row of the table with alternatives is several.
        rows_before: rows of the table, readable or not, in the parts that were finished before.
        unchanged: rows of the parts that were written whose vectors were taken over.
    """

    part_rows: int = 0
    rows_before: int = 0
    unchanged: int = 0


def write_parts(
    work: Work,
    manifest: Manifest,
    rows: np.ndarray,
    rejects: Rejects,
    advance: Callable[[int], object],
    processes: int | None = 1,
    ray: str | None = None,
) -> Written:
    """Write the parts that are missing or damaged, each atomically.

    Args:
        work: the model, the table, the settings and the folder, whose lock is held.
        manifest: the folder's manifest.
        rows: ``(r,)`` row numbers.
        rejects: records the rows that cannot be read.
        advance: called with numbers of rows that were read, and of rows in finished parts.
        processes: how many embed at the same time, at most; None: as many as the cluster allows.
        ray: address of a Ray cluster that embeds. None: this machine.

    Raises:
        MultimodalError: too many rows cannot be read, or a process was ended.
    """
    for unfinished in work.folder.glob("*.new"):  # of a killed process, as this one holds the lock
        unfinished.unlink()
    written, digests = Written(), read_sums(work.folder)
    finished = set(finished_parts(work.folder, manifest, digests))
    for number in sorted(finished):
        written.part_rows += pq.read_metadata(work.folder / part_name(number)).num_rows
        written.rows_before += manifest.rows_of(number)
        if part_name(number) not in digests:
            record_sum(work.folder, part_name(number), digests)
        advance(manifest.rows_of(number))
    missing = [number for number in range(len(manifest.parts)) if number not in finished]

    def parts() -> Iterator[tuple[int, np.ndarray]]:
        for number in missing:
            of_part = rows[number * manifest.part_rows : (number + 1) * manifest.part_rows]
            rejects.forget(of_part.tolist())  # from an earlier run
            yield number, of_part

    def on_read(read: int, found: Sequence[Reject]) -> None:
        rejects.add(found, seen=read)
        advance(read)

    if ray is not None and missing:
        embedded = embed_on_ray(work, parts(), on_read, ray, processes)
    elif (several := min(processes or 1, len(missing))) > 1:
        embedded = embed_in_processes(work, parts(), on_read, several)
    else:
        embedded = embed_in_this_process(work, parts(), on_read)
    with closing(embedded):  # an error here ends the processes
        for part in embedded:
            os.replace(part.path, work.folder / part_name(part.number))
            record_sum(work.folder, part_name(part.number), digests)
            written.part_rows += part.rows
            written.unchanged += part.unchanged
    return written
