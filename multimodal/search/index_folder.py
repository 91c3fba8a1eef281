"""The folder of an index: written a part at a time, and read with its digests compared."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from multimodal.core.digests import FILES, DamagedFile, check_document, check_file, describe_files, with_digest
from multimodal.core.errors import MultimodalError
from multimodal.core.files import atomic_folder, interrupted_replacement
from multimodal.core.npy import map_npy
from multimodal.search.unit_vectors import describe_vector, not_unit

DESCRIPTION = "index.json"
VECTORS = "vectors.npy"
ITEMS = "items.parquet"
FORMAT = 1
ITEM_SCHEMA = pa.schema([(name, pa.string()) for name in ("key", "group", "metadata", "modality")])

READING_ERRORS = (
    DamagedFile, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, pa.ArrowException
)  # fmt: skip
Piece = tuple[np.ndarray, pa.Table]  # ``(n, dim)`` vectors and the n rows of ``items`` that describe them


def pieces_of(part: pa.Table, modalities: Sequence[str], dim: int) -> Iterator[Piece]:
    """Yield the vectors of each modality of a part of embeddings, and the items that describe them.

    Args:
        part: the part, see ``multimodal.search.embed``.
        modalities: its columns of vectors.
        dim: width of the vectors.

    Raises:
        MultimodalError: a vector is not finite or not of unit length.
    """
    for modality in modalities:
        present = part.filter(part[modality].is_valid())
        flat = present[modality].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        vectors = flat.astype(np.float32, copy=False).reshape(-1, dim)
        _check_vectors(vectors, present["key"], modality)
        named = present.select(["key", "group", "metadata"])
        yield vectors, named.append_column("modality", pa.array([modality] * len(named), pa.string()))


def _check_vectors(vectors: np.ndarray, keys: pa.ChunkedArray, modality: str) -> None:
    if not len(wrong := not_unit(vectors)):
        return
    infinite = wrong[~np.isfinite(vectors[wrong]).all(axis=1)]
    if len(infinite):
        raise MultimodalError(
            f"{len(infinite):,} of {len(vectors):,} {modality} vectors are not finite, the first of the row"
            f" {keys[int(infinite[0])].as_py()!r}: the model returns NaN or infinity for them, so they cannot be indexed."
        )
    raise MultimodalError(
        f"{len(wrong):,} of {len(vectors):,} {modality} vectors are not of unit length, the first of the row"
        f" {keys[int(wrong[0])].as_py()!r} ({describe_vector(vectors[wrong[0]])}), so they cannot be indexed."
    )


def write_index_folder(folder: Path, pieces: Iterable[Piece], dim: int, description: Mapping[str, Any]) -> None:
    """Write the folder of an index, replacing an existing one; only one piece of the vectors is in memory at a time.

    Args:
        folder: the folder.
        pieces: the vectors and items, in order.
        dim: width of the vectors.
        description: fingerprint and settings, for ``index.json``; format, count and digests are added.

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
        document = {"format": FORMAT, "count": count, **description, FILES: describe_files(new, [VECTORS, ITEMS])}
        (new / DESCRIPTION).write_text(json.dumps(with_digest(document), indent=1), encoding="utf-8")


def _write_header(file: Any, count: int, dim: int) -> None:
    """Write the header of ``vectors.npy``, whose length does not depend on the count: numpy leaves room for it to grow."""
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (count, dim)})


class IndexFolder(NamedTuple):
    """What an index's folder holds.

    Attributes:
        vectors: ``(n, dim)`` float32, memory-mapped; not compared with their digest yet.
        items: the n rows that describe them.
        description: the contents of ``index.json``.

    Examples:
        >>> IndexFolder(np.eye(2, dtype=np.float32), ITEM_SCHEMA.empty_table(), {"count": 2}).description
        {'count': 2}
    """

    vectors: np.ndarray
    items: pa.Table
    description: dict[str, Any]


def read_index_folder(folder: Path) -> IndexFolder:
    """Open the folder of an index; everything but the contents of ``vectors.npy`` is compared with its digest.

    Raises:
        MultimodalError: there is no index, or it is damaged.
    """
    if not (folder / DESCRIPTION).is_file():
        raise MultimodalError(
            f"{folder} is not an index: {DESCRIPTION} is missing. Build one with `multimodal index`."
            f"{interrupted_replacement(folder)}"
        )
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        if description["format"] != FORMAT:
            raise MultimodalError(f"{folder} has index format {description['format']}; this version reads {FORMAT}.")
        check_document(description, folder / DESCRIPTION)
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
        _ = str(description["fingerprint"])
    except READING_ERRORS as error:
        message = " ".join(str(error).split()).rstrip(".")
        raise MultimodalError(f"The index {folder} is damaged ({message}); build it again.") from error
    return IndexFolder(vectors, items, description)
