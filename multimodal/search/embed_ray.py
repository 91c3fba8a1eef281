"""Parts of a table are embedded on a Ray cluster, by Ray Data.

1. Every actor of a fixed pool loads the model once; on GPUs, one actor for each.
2. A part is one row of a Ray data set: its number and its row numbers. An actor returns the embedded part as Arrow.
3. The process that started it all writes the parts: only it needs to see the folder. The table, and the files that it
   names, must be at the same paths on all machines.
"""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from multimodal.core.errors import MultimodalError
from multimodal.core.extras import require
from multimodal.core.rejects import Reject
from multimodal.search.embed_parts import OnRead, Part
from multimodal.search.embed_processes import PartFile, Work, pickle_work, write_part_file


def embed_on_ray(
    work: Work, parts: Iterator[tuple[int, np.ndarray]], on_read: OnRead, address: str, actors: int | None
) -> Generator[PartFile]:
    """Embed parts on a Ray cluster.

    Args:
        work: the model, the table and the settings, which are pickled.
        parts: number and rows ``(r,)`` of each part.
        on_read: called for each part that was embedded.
        address: of the cluster, as ``ray.init`` takes it; "local": a cluster on this machine, while it is needed.
        actors: actors of the pool. None: one for each GPU of the cluster, or one less than it has processors.

    Raises:
        MultimodalError: Ray is not installed, there is no such cluster, or too many rows cannot be read.
    """
    require("ray", "Embedding on a cluster", "ray.data")
    import ray  # pyright: ignore[reportMissingImports]

    with _cluster(address):
        found = ray.cluster_resources()
        gpus = int(found.get("GPU", 0))
        # a processor must be free for Ray Data's own tasks, or the pool never starts
        size = actors or gpus or max(1, int(found.get("CPU", 1)) - 1)
        items = [{"number": number, "rows": rows.astype(np.int64).tobytes()} for number, rows in parts]
        data = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _PartActor,
            fn_constructor_args=(ray.put(pickle_work(work)),),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=min(size, len(items))),
            num_gpus=1 if gpus else 0,
        )
        for row in data.iter_rows():
            rejects = [Reject(**reject) for reject in json.loads(row["rejects"])]
            on_read(row["read"], rejects)
            with pa.ipc.open_stream(row["part"]) as reader:
                table = reader.read_all()
            yield write_part_file(work.folder, row["number"], Part(table, row["unchanged"]))


class _PartActor:
    """Embeds parts, in a process of the cluster."""

    def __init__(self, pickled: Any) -> None:
        import ray  # pyright: ignore[reportMissingImports]

        work: Work = pickle.loads(ray.get(pickled))  # of the process that started this one
        work.embedder.to("cuda" if torch.cuda.is_available() else "cpu")
        self._embedder = work.part_embedder()

    def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([self._embed(row) for row in batch.to_pylist()])

    def _embed(self, row: Mapping[str, Any]) -> dict[str, Any]:
        rejects: list[Reject] = []
        rows = np.frombuffer(row["rows"], np.int64)
        part = self._embedder.embed(rows, lambda _, found: rejects.extend(found))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, part.table.schema) as writer:
            writer.write_table(part.table)
        return {
            "number": row["number"],
            "read": len(rows),
            "unchanged": part.unchanged,
            "rejects": json.dumps([asdict(reject) for reject in rejects]),
            "part": sink.getvalue().to_pybytes(),
        }


@contextmanager
def _cluster(address: str) -> Iterator[None]:
    """Connect to a cluster in the block, and turn what an actor raised into itself."""
    import ray  # pyright: ignore[reportMissingImports]
    from ray.exceptions import RayError  # pyright: ignore[reportMissingImports]

    try:
        dashboard = False if address == "local" else None
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=dashboard)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise MultimodalError(f"There is no Ray cluster at {address} ({' '.join(str(error).split())}).") from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    try:
        yield
    except RayError as error:
        raise _cause(error) from None
    finally:
        ray.shutdown()


def _cause(error: BaseException) -> BaseException:
    """Return the error of this package that an error of Ray was raised for; without one, an error that says what Ray said."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, MultimodalError):
            return found
        found = getattr(found, "cause", None) or found.__cause__
    return MultimodalError(f"Ray failed: {error}")
