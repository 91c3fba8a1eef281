"""The folder of an index: written a part at a time, and opened with its digests compared.

``index.json`` holds the format, the fingerprint of the model and the settings of the table. An index that is searched exactly
has its vectors in ``vectors.npy`` (``(n, dim)`` float32, memory-mapped) and ``items.parquet`` (``key``, ``group``, ``metadata``
and ``modality`` of each vector), which any number of processes may read. The embedded engine has its files in ``engine/``; of
an index on a server, the folder has the address alone.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from multimodal.core.digests import FILES, DamagedFile, check_document, check_file, describe_files, with_digest
from multimodal.core.errors import MultimodalError
from multimodal.core.files import atomic_folder, no_such_index
from multimodal.core.json_file import read_json
from multimodal.core.manifests import INDEX as DESCRIPTION
from multimodal.core.manifests import ITEMS, VECTORS
from multimodal.core.npy import map_npy
from multimodal.search.engines.engine import ITEM_SCHEMA, Engine, IndexReplaced
from multimodal.search.engines.exact import ExactEngine
from multimodal.search.engines.layout import Layout
from multimodal.search.engines.open import EMBEDDED, build_engine, open_engine
from multimodal.search.index_rows import ROWS, IndexRows
from multimodal.search.pieces import Piece

FORMAT = 1  # searched exactly
ENGINE_FORMAT = 2  # the files of an engine, or its address
ENGINE = "engine"
MODEL = "model"  # in index.json: the folder of the run or model, where an upgrade recorded it
DESCRIBED = ("fingerprint", "data", "metadata", MODEL)  # what index.json says of the model and the table
CHECKED_AT_OPEN = 64 << 20  # bytes of vectors that are checked when an index is opened; more are at their first use

READING_ERRORS = (
    DamagedFile, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, pa.ArrowException
)  # fmt: skip


def write_index_folder(
    folder: Path, pieces: Iterable[Piece], dim: int, description: Mapping[str, Any], rows: Path | None = None
) -> None:
    """Write the folder of an index, replacing an existing one; only one piece of the vectors is in memory at a time.

    Args:
        folder: the folder.
        pieces: the vectors and items, in order.
        dim: width of the vectors.
        description: fingerprint and settings, for ``index.json``; format, count and digests are added.
        rows: the file of what is known of the rows, which is copied. None: they are those of the table.

    Raises:
        MultimodalError: the folder contains something else.
    """
    with atomic_folder(folder, marker=DESCRIPTION) as new:
        items, count = [ITEM_SCHEMA.empty_table()], 0
        with (new / VECTORS).open("wb") as file:
            _write_header(file, 0, dim)
            for vectors, described in pieces:
                np.asarray(vectors, np.float32).tofile(file)
                items.append(described)
                count += len(vectors)
            file.seek(0)
            _write_header(file, count, dim)
        pq.write_table(pa.concat_tables(items), new / ITEMS)
        if rows is None:
            IndexRows.create(new, (key for part in items for key in part["key"].to_pylist()))
        else:
            shutil.copyfile(rows, new / ROWS)
        document = {"format": FORMAT, "count": count, **description, FILES: describe_files(new, [VECTORS, ITEMS])}
        (new / DESCRIPTION).write_text(json.dumps(with_digest(document), indent=1), encoding="utf-8")


def _write_header(file: Any, count: int, dim: int) -> None:
    """Write the header of ``vectors.npy``, whose length does not depend on the count: numpy leaves room for it to grow."""
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (count, dim)})


def write_engine_index(
    folder: Path, engine: str, parts: Iterable[pa.Table], layout: Layout, description: Mapping[str, Any]
) -> None:
    """Write the folder of an index that an engine searches, replacing an existing one.

    Args:
        folder: the folder.
        engine: name of the engine, see ``multimodal.search.engines.open``; not "exact".
        parts: parts of embeddings.
        layout: what is to be stored.
        description: fingerprint and settings, for ``index.json``.

    Raises:
        MultimodalError: the folder contains something else, another process has it open, or a server fails.
    """
    document = with_digest({"format": ENGINE_FORMAT, "engine": engine, **description})
    with ExitStack() as replaced:
        if engine == EMBEDDED:
            from multimodal.search.engines.qdrant_edge import QdrantEdgeEngine

            replaced.enter_context(QdrantEdgeEngine.replacing(folder / ENGINE))
        new = replaced.enter_context(atomic_folder(folder, marker=DESCRIPTION))
        (new / DESCRIPTION).write_text(json.dumps(document, indent=1), encoding="utf-8")
        keys: list[str] = []
        build_engine(engine, new / ENGINE, _with_keys(parts, keys), layout, description["fingerprint"])
        if engine == EMBEDDED:  # the folder of an index on a server is copied to every machine that searches
            IndexRows.create(new, keys)


def _with_keys(parts: Iterable[pa.Table], keys: list[str]) -> Iterator[pa.Table]:
    """Yield parts of embeddings, and append the keys of their rows to a list."""
    for part in parts:
        keys += part["key"].to_pylist()
        yield part


class IndexFolder(NamedTuple):
    """An open folder of an index.

    Attributes:
        engine: searches it.
        description: the contents of ``index.json``.

    Examples:
        >>> rows = {"key": ["a"], "group": ["a"], "metadata": ["{}"], "modality": ["text"]}
        >>> IndexFolder(ExactEngine(np.float32([[0, 1]]), pa.table(rows)), {"fingerprint": "f"}).engine.dim
        2
    """

    engine: Engine
    description: dict[str, Any]


def read_index_description(folder: Path) -> dict[str, Any]:
    """Read the description of an index, which others may have open.

    Args:
        folder: the folder of the index.

    Raises:
        MultimodalError: there is no index, or its description is damaged.
    """
    if not (folder / DESCRIPTION).is_file():
        raise no_such_index(folder)
    try:
        description = read_json(folder / DESCRIPTION)
        if description["format"] not in (FORMAT, ENGINE_FORMAT):
            raise MultimodalError(
                f"{folder} has index format {description['format']}; this version reads {FORMAT} and {ENGINE_FORMAT}."
            )
        check_document(description, folder / DESCRIPTION)
        _ = str(description["fingerprint"])
    except READING_ERRORS as error:
        raise _damaged(folder, error) from error
    return description


def _damaged(folder: Path, error: Exception) -> MultimodalError:
    message = " ".join(str(error).split()).rstrip(".")
    return MultimodalError(f"The index {folder} is damaged ({message}); build it again.")


def open_index_folder(folder: Path) -> IndexFolder:
    """Open the folder of an index; everything but large vectors is compared with its digest.

    Raises:
        MultimodalError: there is no index, it is damaged, or another process has it open.
    """
    description = read_index_description(folder)
    try:
        if description["format"] == ENGINE_FORMAT:
            engine = open_engine(description["engine"], folder / ENGINE, description["fingerprint"])
            return IndexFolder(engine, description)
        return IndexFolder(_open_exact(folder, description), description)
    except READING_ERRORS as error:
        raise _damaged(folder, error) from error


def _open_exact(folder: Path, description: Mapping[str, Any]) -> Engine:
    files = description.get(FILES, {})
    check_file(folder / ITEMS, files.get(ITEMS))
    if VECTORS in files and (size := (folder / VECTORS).stat().st_size) != files[VECTORS]["bytes"]:
        raise ValueError(f"{VECTORS} has {size:,} bytes instead of {files[VECTORS]['bytes']:,}")
    vectors = map_npy(folder / VECTORS)
    items = pq.read_table(folder / ITEMS)
    if not len(vectors) == len(items) == description["count"]:
        raise ValueError("its files differ in length")
    if vectors.ndim != 2 or vectors.dtype != np.float32 or items.schema.names != ITEM_SCHEMA.names:
        raise ValueError("its files are not those that `multimodal index` writes")
    opened = _Opened(folder, dict(description))
    engine = ExactEngine(vectors, items, opened.save, opened.check_vectors, str(folder / VECTORS))
    if vectors.nbytes <= CHECKED_AT_OPEN:
        engine.check()
    return engine


@dataclass
class _Opened:
    """The folder of an index that is searched exactly, and its ``index.json`` as it was read."""

    folder: Path
    description: dict[str, Any]

    def check_vectors(self) -> None:
        check_file(self.folder / VECTORS, self.description.get(FILES, {}).get(VECTORS), "Build the index again.")

    def save(self, vectors: np.ndarray, items: pa.Table) -> None:
        """Write what is stored now, unless another process has written the folder meanwhile."""
        if (now := read_json(self.folder / DESCRIPTION)) != self.description:
            if now.get("fingerprint") != self.description["fingerprint"]:
                raise IndexReplaced(self.folder)
            raise MultimodalError(f"{self.folder} was changed by others since it was opened; open it again.")
        about = {name: self.description[name] for name in DESCRIBED if name in self.description}
        rows = self.folder / ROWS
        known = rows if rows.is_file() else None
        write_index_folder(self.folder, [(vectors, items)], vectors.shape[1], about, known)
        self.description = read_json(self.folder / DESCRIPTION)
