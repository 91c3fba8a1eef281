"""Shards in Parquet or WebDataset format, with the same bytes for the same rows."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from multimodal.core.errors import MultimodalError
from multimodal.data.tables.webdataset import KEY
from multimodal.prepare.arrow_types import Stored, stored_value
from multimodal.prepare.cleaning import File

if TYPE_CHECKING:
    from multimodal.prepare.columns import Column

FORMATS = ("parquet", "webdataset")
ROW_GROUP_BYTES = 16 << 20
ROW_GROUP_ROWS = 10_000


def file_safe(name: str) -> str:
    """Percent-encode the characters of a name that have a meaning in paths."""
    return quote(name, safe=" ").replace(".", "%2E")


class _ParquetShard:
    """Writer of one Parquet file.

    Files become cells ``{bytes, path}``, which the ``datasets`` library reads as pictures and sounds. Rows are written in
    groups of several megabytes.
    """

    suffix = "parquet"

    def __init__(self, path: Path, columns: Sequence[Column], stored: Mapping[str, Stored]) -> None:
        import pyarrow.parquet as pq

        self._columns, self._stored = columns, stored
        self._schema = _schema(columns, stored)
        # explicit, because the defaults may change with the library's version; statistics of pictures are useless
        self._writer = pq.ParquetWriter(
            str(path), self._schema, compression="zstd", write_statistics=False, version="2.6"
        )
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0

    def write(self, number: int, clean: Mapping[str, Any]) -> None:
        cells = {c.name: self._cell(c, clean.get(c.name), number) for c in self._columns}
        self._rows.append(cells)
        self._bytes += sum(_size(value) for value in clean.values())
        if self._bytes >= ROW_GROUP_BYTES or len(self._rows) == ROW_GROUP_ROWS:
            self._flush()

    def _cell(self, column: Column, value: Any, number: int) -> Any:
        if isinstance(value, File):
            return {"bytes": value.data, "path": value.name or f"{number:09d}.{file_suffix(value, column.kind)}"}
        return None if value is None else stored_value(value, self._stored[column.name])

    def _flush(self) -> None:
        import pyarrow as pa

        try:
            table = pa.Table.from_pylist(self._rows, schema=self._schema)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise MultimodalError(f"The clean rows cannot be stored as Parquet ({error}).") from error
        self._writer.write_table(table)
        self._rows, self._bytes = [], 0

    def close(self) -> None:
        if self._rows:
            self._flush()
        self._writer.close()


def _size(value: Any) -> int:
    """Return the approximate number of bytes of a value; 8 for lists and mappings, whose size is unknown."""
    return len(value.data) if isinstance(value, File) else len(value) if isinstance(value, str | bytes) else 8


def _schema(columns: Sequence[Column], stored: Mapping[str, Stored]) -> Any:
    """Return the Arrow schema, with the metadata by which ``datasets`` recognises pictures and sounds."""
    import pyarrow as pa

    of_file = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([(c.name, of_file if c.is_file else stored[c.name].arrow) for c in columns])
    media = {"image": "Image", "audio": "Audio"}
    if not any(c.kind in media for c in columns):
        return schema
    from datasets import Audio, Features, Image

    features = Features.from_arrow_schema(schema)
    for column in columns:
        if column.kind in media:
            features[column.name] = Image() if column.kind == "image" else Audio()
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features.to_dict()}}, sort_keys=True)})


class _TarShard:
    """Writer of one WebDataset tar.

    A row is stored as ``000000012.image.png`` (a file), ``000000012.title.txt`` (a text), ``000000012.hash.bin`` (bytes that
    are not a file) and ``000000012.json`` (all other columns, and null for missing values, so that every row names all
    columns). The number is the row's number in the table.
    """

    suffix = "tar"

    def __init__(self, path: Path, columns: Sequence[Column], stored: Mapping[str, Stored]) -> None:
        self._columns, self._stored = columns, stored
        self._tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115  (closed by close)

    def write(self, number: int, clean: Mapping[str, Any]) -> None:
        json_columns: dict[str, Any] = {}
        for column in self._columns:
            value = clean.get(column.name)
            if isinstance(value, File):
                self._add(f"{number:09d}.{file_safe(column.name)}.{file_suffix(value, column.kind)}", value.data)
            elif column.kind == "text" and column.name != KEY and value is not None:  # KEY names the number
                self._add(f"{number:09d}.{file_safe(column.name)}.txt", value.encode())
            elif isinstance(stored := None if value is None else stored_value(value, self._stored[column.name]), bytes):
                self._add(f"{number:09d}.{file_safe(column.name)}.bin", stored)
            else:
                json_columns[column.name] = stored
        self._add(f"{number:09d}.json", json.dumps(json_columns, ensure_ascii=False, default=str).encode())

    def _add(self, name: str, data: bytes) -> None:
        entry = tarfile.TarInfo(name)  # owner 0, time 0
        entry.size = len(data)
        entry.mode = 0o644
        self._tar.addfile(entry, io.BytesIO(data))

    def close(self) -> None:
        self._tar.close()


MAGIC = [
    (b"\x89PNG", "png"), (b"\xff\xd8\xff", "jpg"), (b"GIF8", "gif"), (b"BM", "bmp"), (b"II*\0", "tif"), (b"MM\0*", "tif"),
    (b"fLaC", "flac"), (b"OggS", "ogg"), (b"ID3", "mp3"), (b"FORM", "aiff"),
]  # fmt: skip


def file_suffix(file: File, kind: str) -> str:
    """Return the suffix of a file's format, detected from its first bytes, or the suffix of its name, or "bin".

    Args:
        file: the file.
        kind: kind of its column; for "file" (any format), only WebP and WAV are detected.
    """
    if file.data[:4] == b"RIFF":
        return "webp" if file.data[8:12] == b"WEBP" else "wav"
    found = next((suffix for magic, suffix in MAGIC if file.data.startswith(magic)), None) if kind != "file" else None
    return found or file.suffix or "bin"


class ShardWriter:
    """Writer of the shards of all splits: ``train-00000.parquet``, ``train-00001.parquet``, ...

    Args:
        folder: an existing folder.
        format: ``parquet`` or ``webdataset``.
        shard_rows: rows in a shard.
        columns: the columns to write.
        stored: column -> the type in which it is stored; file columns need no entry.

    Attributes:
        rows: split -> rows written.

    Examples:
        >>> import pyarrow as pa
        >>> from multimodal.prepare.columns import Column
        >>> title = Column("title", "text", "text")
        >>> shards = ShardWriter(Path("."), "parquet", 1000, [title], {"title": Stored(pa.string(), as_text=False)})
        >>> shards.write("train", 0, {"title": "a red cup"})
        >>> shards.close()
        >>> [path.name for path in Path(".").iterdir()], shards.rows
        (['train-00000.parquet'], {'train': 1})
    """

    def __init__(
        self, folder: Path, format: str, shard_rows: int, columns: Sequence[Column], stored: Mapping[str, Stored]
    ) -> None:
        self._folder, self._shard_rows, self._columns, self._stored = folder, shard_rows, columns, stored
        self._kind = _ParquetShard if format == "parquet" else _TarShard
        self._open: dict[str, _ParquetShard | _TarShard] = {}
        self.rows: dict[str, int] = {}

    def write(self, split: str, number: int, clean: Mapping[str, Any]) -> None:
        """Write a row.

        Args:
            split: name of its split.
            number: its number in the table.
            clean: column -> clean value.

        Raises:
            MultimodalError: the values do not fit the types of their columns.
        """
        written = self.rows.get(split, 0)
        if written % self._shard_rows == 0:
            if split in self._open:
                self._open.pop(split).close()
            path = self._folder / f"{file_safe(split)}-{written // self._shard_rows:05d}.{self._kind.suffix}"
            self._open[split] = self._kind(path, self._columns, self._stored)
        self._open[split].write(number, clean)
        self.rows[split] = written + 1

    def close(self) -> None:
        """Finish all open shards."""
        while self._open:
            self._open.popitem()[1].close()
