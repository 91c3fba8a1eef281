"""The files that come out: Parquet or WebDataset, the same bytes for the same rows."""

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
    """A name without the characters that mean something in a path."""
    return quote(name, safe=" ").replace(".", "%2E")


class ParquetShard:
    """One Parquet file. Files are cells ``{bytes, path}``, which the ``datasets`` library reads as pictures and sounds.

    Rows go to the file in groups of some megabytes.
    """

    ending = "parquet"

    def __init__(self, path: Path, columns: Sequence[Column], stored: Mapping[str, Stored]) -> None:
        import pyarrow.parquet as pq

        self._columns, self._stored = columns, stored
        self._schema = _schema(columns, stored)
        # statistics of pictures and other settings that could change with the library's version are set
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
    """About how many bytes a value takes; of lists and mappings it is not known."""
    return len(value.data) if isinstance(value, File) else len(value) if isinstance(value, str | bytes) else 8


def _schema(columns: Sequence[Column], stored: Mapping[str, Stored]) -> Any:
    """The Arrow schema, with the note by which ``datasets`` knows pictures and sounds."""
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


class TarShard:
    """One WebDataset tar. A row is ``000000012.image.png`` (a file), ``000000012.title.txt`` (a text), ``000000012.hash.bin``
    (bytes that are no file), and ``000000012.json`` (all other columns, and null for what is missing, so that every row
    names all columns); the number is that of the row in the table.
    """

    ending = "tar"

    def __init__(self, path: Path, columns: Sequence[Column], stored: Mapping[str, Stored]) -> None:
        self._columns, self._stored = columns, stored
        self._tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115  (closed by close)

    def write(self, number: int, clean: Mapping[str, Any]) -> None:
        beside: dict[str, Any] = {}
        for column in self._columns:
            value = clean.get(column.name)
            if isinstance(value, File):
                self._add(f"{number:09d}.{file_safe(column.name)}.{file_suffix(value, column.kind)}", value.data)
            elif column.kind == "text" and column.name != KEY and value is not None:  # that of the files is the number
                self._add(f"{number:09d}.{file_safe(column.name)}.txt", value.encode())
            elif isinstance(kept := None if value is None else stored_value(value, self._stored[column.name]), bytes):
                self._add(f"{number:09d}.{file_safe(column.name)}.bin", kept)
            else:
                beside[column.name] = kept
        self._add(f"{number:09d}.json", json.dumps(beside, ensure_ascii=False, default=str).encode())

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
    """The ending that a file's first bytes ask for, else that of its name."""
    if file.data[:4] == b"RIFF":
        return "webp" if file.data[8:12] == b"WEBP" else "wav"
    found = next((ending for magic, ending in MAGIC if file.data.startswith(magic)), None) if kind != "file" else None
    return found or file.ending or "bin"


class ShardWriter:
    """The shards of all splits in a folder: ``train-00000.parquet``, ``train-00001.parquet``, ..."""

    def __init__(
        self, folder: Path, format: str, shard_rows: int, columns: Sequence[Column], stored: Mapping[str, Stored]
    ) -> None:
        self._folder, self._shard_rows, self._columns, self._stored = folder, shard_rows, columns, stored
        self._kind = ParquetShard if format == "parquet" else TarShard
        self._open: dict[str, ParquetShard | TarShard] = {}
        self.rows: dict[str, int] = {}

    def write(self, split: str, number: int, clean: Mapping[str, Any]) -> None:
        """Write a row: ``number`` is its place in the table, ``clean`` column -> value."""
        written = self.rows.get(split, 0)
        if written % self._shard_rows == 0:
            if split in self._open:
                self._open.pop(split).close()
            path = self._folder / f"{file_safe(split)}-{written // self._shard_rows:05d}.{self._kind.ending}"
            self._open[split] = self._kind(path, self._columns, self._stored)
        self._open[split].write(number, clean)
        self.rows[split] = written + 1

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()
