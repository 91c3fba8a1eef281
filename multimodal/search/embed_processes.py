"""Processes that embed parts of a table; each takes a part when it has finished the one before.

1. A process is started afresh (``spawn``), loads the model, and uses its share of the cores, or one GPU.
2. It writes a part to a file of its own and says so; only the process that started it renames files.
3. It ends when the process that started it has ended, also by ``kill -9``.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError
from multimodal.core.hardware import cores
from multimodal.core.library_warnings import ignore_import_warnings
from multimodal.core.rejects import Reject
from multimodal.data.samples import Samples
from multimodal.search.earlier_vectors import EarlierVectors
from multimodal.search.embed_parts import OnRead, Part, PartEmbedder, PartSettings

CONTEXT = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class PartFile:
    """A part that was written to a file.

    Attributes:
        number: the part's number.
        path: the file.
        rows: rows in it; one with alternatives is several.
        unchanged: those whose vectors were taken over.
    """

    number: int
    path: Path
    rows: int
    unchanged: int


@dataclass(frozen=True)
class Work:
    """What a process needs to embed parts.

    Attributes:
        embedder: the model.
        samples: the table.
        settings: how parts are embedded.
        folder: where their files are written.
        earlier: whole parts to take vectors from.

    Examples:
        >>> from multimodal import create
        >>> embedder = Embedder({"text": create("text", "bag")}, dim=8)
        >>> embedder.fit_processors({"text": ["a red cup"]})
        >>> samples = Samples.of([{"title": "a red cup"}], {"text": "title"})
        >>> work = Work(embedder, samples, PartSettings(["text"]), Path(), earlier=[])
        >>> (part,) = embed_in_this_process(work, iter([(0, np.arange(1))]), on_read=print)
        1 []
        >>> part.number, part.rows
        (0, 1)
    """

    embedder: Embedder
    samples: Samples
    settings: PartSettings
    folder: Path
    earlier: Sequence[Path]

    def part_embedder(self) -> PartEmbedder:
        """Return what embeds parts."""
        dim, modalities = self.embedder.dim, self.settings.modalities
        earlier = EarlierVectors(self.earlier, modalities, dim) if self.earlier else None
        return PartEmbedder(self.embedder, self.samples, self.settings, earlier)

    def write_part(self, part_embedder: PartEmbedder, number: int, rows: np.ndarray, on_read: OnRead) -> PartFile:
        """Embed rows and write them to a file.

        Args:
            part_embedder: what ``part_embedder`` returned.
            number: the part's number.
            rows: ``(r,)`` row numbers.
            on_read: called for each group of rows that was read.
        """
        part = part_embedder.embed(rows, on_read)
        return write_part_file(self.folder, number, part)


def write_part_file(folder: Path, number: int, part: Part) -> PartFile:
    """Write a part to a file whose name ends in ``.new`` and is that of no other process.

    Args:
        folder: the folder of embeddings.
        number: the part's number.
        part: the part.
    """
    path = folder / f"part-{number:05}.{os.getpid()}.new"
    pq.write_table(part.table, path)
    return PartFile(number, path, len(part.table), part.unchanged)


def embed_in_this_process(work: Work, parts: Iterator[tuple[int, np.ndarray]], on_read: OnRead) -> Generator[PartFile]:
    """Embed parts one after another.

    Args:
        work: the model, the table and the settings.
        parts: number and rows ``(r,)`` of each part.
        on_read: called for each group of rows that was read.
    """
    part_embedder = None
    for number, rows in parts:
        part_embedder = part_embedder or work.part_embedder()  # not where all parts are finished
        yield work.write_part(part_embedder, number, rows, on_read)


def embed_in_processes(
    work: Work, parts: Iterator[tuple[int, np.ndarray]], on_read: OnRead, processes: int
) -> Generator[PartFile]:
    """Embed parts in several processes; they come in the order in which they are finished.

    Args:
        work: the model, the table and the settings, which are pickled.
        parts: number and rows ``(r,)`` of each part.
        on_read: called for each group of rows that was read.
        processes: how many to start.

    Raises:
        MultimodalError: a process was ended by someone else, or it could not be started.
        Exception: what a process raised.
    """
    on_gpus = work.embedder.device.type == "cuda"
    pickled = pickle_work(work)
    started: dict[Connection, SpawnProcess] = {}
    try:
        for number in range(processes):
            device = f"cuda:{number % torch.cuda.device_count()}" if on_gpus else "cpu"
            ours, theirs = CONTEXT.Pipe()
            process = CONTEXT.Process(target=_embed_parts, args=(theirs, device, processes), daemon=True)
            started[ours] = process
            process.start()
            theirs.close()
            ours.send_bytes(pickled)
        remaining = {connection for connection in started if _give_next(connection, parts)}
        while remaining:
            for connection in wait([*remaining]):
                assert isinstance(connection, Connection)
                try:
                    kind, *contents = connection.recv()
                except (EOFError, ConnectionResetError):
                    raise _ended(started[connection]) from None
                if kind == "read":
                    on_read(*contents)
                elif kind == "part":
                    yield contents[0]
                    if not _give_next(connection, parts):
                        remaining.discard(connection)
                else:
                    raise _raised(*contents)
    except (BrokenPipeError, ConnectionResetError) as error:
        ended = [process for process in started.values() if process.exitcode is not None]
        raise _ended((ended or [*started.values()])[0]) from error
    finally:
        for process in started.values():
            if process.pid is not None:
                process.kill()  # nothing is lost: it has finished its parts, or they are to be dropped
                process.join()
        for connection in started:
            connection.close()


def pickle_work(work: Work) -> bytes:
    """Pickle the model, on the CPU, and the table, for other processes.

    Raises:
        MultimodalError: one of them cannot be pickled.
    """
    device = work.embedder.device
    work.embedder.to("cpu")  # so that it is not unpickled on the GPU of this process
    try:
        return pickle.dumps(work)
    except Exception as error:
        raise MultimodalError(
            f"The model or the table cannot be sent to other processes ({error}); use one process."
        ) from error
    finally:
        work.embedder.to(device)


def _give_next(connection: Connection, parts: Iterator[tuple[int, np.ndarray]]) -> bool:
    part = next(parts, None)
    if part is not None:
        connection.send(part)
    return part is not None


def _ended(process: SpawnProcess) -> MultimodalError:
    process.join()
    code = process.exitcode or 0
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    memory = " (perhaps the system ran out of memory; use fewer processes)" if code == -9 else ""
    return MultimodalError(
        f"The embedding process {process.pid} {how}{memory}. Finished parts are kept: the same command continues."
    )


def _raised(error: Exception | None, trace: str) -> Exception:
    if error is None:
        return RuntimeError(f"An embedding process failed:\n{trace}")
    if not isinstance(error, MultimodalError):
        error.add_note(f"In an embedding process:\n{trace}")
    return error


# -- in the started process


def _embed_parts(connection: Connection, device: str, processes: int) -> None:
    """Embed the parts that the connection names, until there are none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the first process ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threads = max(1, cores() // processes)
    if device == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads)
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))  # of tokenizers
    with suppress(EOFError, BrokenPipeError):
        try:
            with ignore_import_warnings():
                work: Work = pickle.loads(connection.recv_bytes())  # of the process that started this one
            work.embedder.to(device)
            part_embedder = work.part_embedder()

            def on_read(rows: int, rejects: Sequence[Reject]) -> None:
                connection.send(("read", rows, list(rejects)))

            while True:
                number, rows = connection.recv()
                connection.send(("part", work.write_part(part_embedder, number, rows, on_read)))
        except (EOFError, BrokenPipeError):
            raise
        except Exception as error:
            connection.send(("raised", _if_picklable(error), traceback.format_exc()))


def _if_picklable(error: Exception) -> Exception | None:
    try:
        return error if isinstance(pickle.loads(pickle.dumps(error)), type(error)) else None
    except Exception:
        return None


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def default_processes() -> int:
    """Return the number of GPUs; 1 without one."""
    return max(1, torch.cuda.device_count())
