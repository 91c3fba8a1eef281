"""Files of vectors that are looked up by key, mapped into memory.

========================  =====================================================================================
file                      keys and vectors
========================  =====================================================================================
``NAME.npy``              ``(n, width)``; the keys are the list of strings in ``NAME.json`` next to it, else 0 to n - 1
``NAME.safetensors``      a tensor ``(n, width)``; the keys are the JSON list ``keys`` in the file's metadata, else as
                          above. ``predictions.safetensors`` of ``multimodal predict`` is such a file
``NAME.parquet``          a column ``key`` and one of lists of numbers; it is copied once to an ``.npy`` in the cache
a folder of Parquet       the same, as ``multimodal embed`` writes it; rows without a vector are ignored
========================  =====================================================================================
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from filelock import FileLock
from safetensors import SafetensorError, safe_open

from multimodal.core.digests import check_recorded, is_whole_copy, write_copy_digests
from multimodal.core.errors import MultimodalError, UsageError, suggest
from multimodal.core.files import atomic_folder, default_cache
from multimodal.core.npy import map_npy

pc: Any = pyarrow.compute  # its functions are made as it is imported

KEY = "key"
COPIED_VECTORS, COPIED_KEYS = "vectors.npy", "keys.arrow"
PARQUET_BATCH_ROWS = 8192  # rows of a Parquet file

VectorOf = Callable[[int], np.ndarray]


class VectorFile:
    """The vectors of a file by key; of equal keys the first counts.

    Args:
        path: see the table above.
        column: which tensor, or column of vectors; None: the only one that there is.

    Attributes:
        width: of the vectors.

    Raises:
        UsageError: there is no such file, column or format.
        MultimodalError: the file is damaged, or the keys are not as many as the vectors.

    Examples:
        >>> np.save("vectors.npy", np.eye(2, dtype=np.float32))
        >>> VectorFile(Path("vectors.npy"), None).width
        2
    """

    def __init__(self, path: Path, column: str | None) -> None:
        if not path.exists():
            raise UsageError(f"precomputed: the file of vectors {path} does not exist; put it there, or name another.")
        suffix = ".parquet" if path.is_dir() else path.suffix.lower()
        if suffix not in READERS:
            raise UsageError(
                f"precomputed: {path} ends in none of {', '.join(READERS)}; write the vectors in one of these formats."
            )
        if suffix != ".parquet":
            check_recorded([path], "Make it again.")
        try:
            shape, self._vector_of, keys = READERS[suffix](path, column)
        except (OSError, ValueError, TypeError, EOFError, SafetensorError, pa.ArrowException) as error:
            message = " ".join(str(error).split())
            raise MultimodalError(f"The file of vectors {path} cannot be read ({message}).") from error
        if len(shape) != 2:
            raise MultimodalError(f"{path} holds an array of shape {tuple(shape)}, not (vectors, width).")
        count, self.width = shape
        if keys is not None and len(keys) != count:
            raise MultimodalError(f"{path} has {count:,} vectors but {len(keys):,} keys; each vector needs one.")
        self._row_of = _RowNumbers(count).find if keys is None else _Keys(keys).find

    def find(self, key: str) -> np.ndarray | None:
        """The vector of a key, ``(width,)`` float32; None if the file has none."""
        row = self._row_of(key)
        return None if row is None else np.array(self._vector_of(row), dtype=np.float32)


class _Keys:
    """Keys -> rows by bisection of the sorted keys, in memory of Arrow's own, which forked processes share."""

    def __init__(self, keys: pa.Array) -> None:
        self._keys = keys
        rows = pa.table({"key": keys, "row": np.arange(len(keys))})
        self._order = pc.sort_indices(rows, [("key", "ascending"), ("row", "ascending")]).to_numpy()

    def find(self, key: str) -> int | None:
        low, high = 0, len(self._order)
        while low < high:
            middle = (low + high) // 2
            if self._at(middle) < key:  # Arrow sorts by UTF-8 bytes, which is the order of the characters' numbers
                low = middle + 1
            else:
                high = middle
        return int(self._order[low]) if low < len(self._order) and self._at(low) == key else None

    def _at(self, place: int) -> str:
        return self._keys[int(self._order[place])].as_py()


class _RowNumbers:
    """The keys "0" to "n - 1"."""

    def __init__(self, count: int) -> None:
        self._count = count

    def find(self, key: str) -> int | None:
        row = int(key) if key.isascii() and key.isdigit() and len(key) < 20 else self._count
        return row if row < self._count and str(row) == key else None


def _open_npy(path: Path, column: str | None) -> tuple[Sequence[int], VectorOf, pa.Array | None]:
    if column is not None:
        raise UsageError(f"precomputed: {path} holds one array, so there is no column {column!r}; leave it out.")
    vectors = map_npy(path)
    if vectors.dtype.kind not in "fiu":
        raise TypeError(f"it holds {vectors.dtype}, not numbers")
    return vectors.shape, vectors.__getitem__, _keys_from_json(path)


def _open_safetensors(path: Path, column: str | None) -> tuple[Sequence[int], VectorOf, pa.Array | None]:
    file = safe_open(path, framework="pt")
    matrices = {name.removesuffix(".vectors"): name for name in file.keys() if len(_shape(file, name)) == 2}  # noqa: SIM118
    name = matrices[_choose_column(path, column, list(matrices))]
    vectors = file.get_slice(name)
    listed = (file.metadata() or {}).get("keys")
    keys = _keys_from_json(path) if listed is None else _key_array(json.loads(listed))
    rows = f"{name.removesuffix('.vectors')}.rows"
    if keys is not None and name.endswith(".vectors") and rows in file.keys():  # noqa: SIM118
        keys = keys.take(pa.array(file.get_tensor(rows).numpy()))

    def vector_of(row: int) -> np.ndarray:
        return vectors[row].float().numpy()

    return _shape(file, name), vector_of, keys


def _shape(file: Any, name: str) -> list[int]:
    return file.get_slice(name).get_shape()


def _open_parquet(path: Path, column: str | None) -> tuple[Sequence[int], VectorOf, pa.Array | None]:
    parts = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not parts:
        raise UsageError(f"precomputed: the folder {path} holds no Parquet files.")
    schema = pq.read_schema(parts[0])
    lists = [field.name for field in schema if pa.types.is_list(field.type) or pa.types.is_fixed_size_list(field.type)
             or pa.types.is_large_list(field.type)]  # fmt: skip
    if KEY not in schema.names:
        raise UsageError(f"precomputed: {path} has no column {KEY!r}; it has {', '.join(schema.names)}.")
    chosen = _choose_column(path, column, lists)
    digest = sha256(json.dumps([str(path.absolute()), chosen, *map(_file_state, parts)]).encode()).hexdigest()[:32]
    copy = default_cache() / "vectors" / digest
    copy.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{copy}.lock"):  # of several processes one makes it
        if not is_whole_copy(copy):
            shutil.rmtree(copy, ignore_errors=True)
            with atomic_folder(copy, marker=COPIED_VECTORS) as new:
                _copy(path, parts, chosen, new)
                write_copy_digests(new)
    with pa.memory_map(str(copy / COPIED_KEYS)) as mapped:
        keys = pa.ipc.open_file(mapped).read_all().column(KEY)
    vectors = map_npy(copy / COPIED_VECTORS)
    joined = keys.chunk(0) if keys.num_chunks == 1 else keys.combine_chunks()
    return (len(keys), vectors.shape[1]), vectors.__getitem__, joined


def _file_state(part: Path) -> list[Any]:
    found = part.stat()
    return [part.name, found.st_size, found.st_mtime_ns]


def _copy(path: Path, parts: Sequence[Path], column: str, folder: Path) -> None:
    """Write the vectors that there are and their keys."""
    check_recorded(parts, "Embed the table again.")
    rows = sum(pq.read_metadata(part).num_rows for part in parts)
    vectors: Any = None
    keys, done = [], 0
    for found, numbers in _blocks(parts, column):
        if vectors is None:
            shape = rows, numbers.shape[1]
            vectors = np.lib.format.open_memmap(folder / COPIED_VECTORS, "w+", dtype=np.float32, shape=shape)
        if numbers.shape[1] != vectors.shape[1]:
            raise MultimodalError(
                f"{path}: the vectors of column {column!r} are of different widths, {vectors.shape[1]} and"
                f" {numbers.shape[1]}; all must have the same."
            )
        vectors[done : done + len(numbers)] = numbers
        done += len(numbers)
        keys.append(found)
    if vectors is None:
        raise MultimodalError(f"{path}: the column {column!r} holds no vector.")
    vectors.flush()
    table = pa.table({KEY: pa.chunked_array(keys).combine_chunks()})
    with pa.ipc.new_file(folder / COPIED_KEYS, table.schema) as writer:
        writer.write_table(table, max_chunksize=max(done, 1))


def _blocks(parts: Sequence[Path], column: str) -> Iterator[tuple[pa.Array, np.ndarray]]:
    for part in parts:
        with pq.ParquetFile(part) as file:
            for batch in file.iter_batches(PARQUET_BATCH_ROWS, columns=[KEY, column]):
                batch = batch.filter(pc.and_(batch.column(KEY).is_valid(), batch.column(column).is_valid()))
                if not len(batch):
                    continue
                lists = batch.column(column)
                widths = pc.unique(pc.list_value_length(lists)).to_pylist()
                if len(widths) > 1:
                    raise MultimodalError(
                        f"{part}: the vectors of column {column!r} are of different widths, {widths[0]} and {widths[1]};"
                        " all must have the same."
                    )
                numbers = lists.flatten().to_numpy(zero_copy_only=False).reshape(len(batch), widths[0])
                yield batch.column(KEY).cast(pa.large_string()), numbers


def _choose_column(path: Path, column: str | None, known: list[str]) -> str:
    if column is None and len(known) == 1:
        return known[0]
    if column not in known:
        what = "name the vectors by `column`." if column is None else f"there are no vectors {column!r}."
        raise UsageError(f"precomputed: {path}: {what}{suggest(column or '', known)}")
    return column


def _keys_from_json(path: Path) -> pa.Array | None:
    listed = path.with_suffix(".json")
    return _key_array(json.loads(listed.read_text(encoding="utf-8-sig"))) if listed.is_file() else None


def _key_array(keys: Any) -> pa.Array:
    if not isinstance(keys, list) or not all(isinstance(key, str | int) for key in keys):
        raise ValueError("its keys are not a JSON list of strings")
    return pa.array(map(str, keys), pa.large_string(), size=len(keys))


READERS: dict[str, Callable[[Path, str | None], tuple[Sequence[int], VectorOf, pa.Array | None]]] = {
    ".npy": _open_npy,
    ".safetensors": _open_safetensors,
    ".parquet": _open_parquet,
}
