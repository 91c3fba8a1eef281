"""WebDataset tar shards: which columns they have."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from multimodal.core.errors import UsageError

if TYPE_CHECKING:
    from datasets import Features

LOOKED_AT = 2_000  # members; a column that none of them has is not seen
LARGEST = 64 * 2**20  # bytes of a member that is read to tell its type


def tar_features(files: Sequence[str]) -> Features:
    """The columns of tar shards: ``__key__``, ``__url__`` and one for each suffix, missing where a sample has no such file.

    The ``datasets`` library tells them by itself only where the first samples have all of them.

    Raises:
        UsageError: a shard holds tensors of torch, which are not read.
    """
    import fsspec
    from datasets import Audio, Features, Image, Value
    from datasets.packaged_modules.webdataset.webdataset import WebDataset

    found: dict[str, Any] = {}
    looked_at = 0
    for file in files:
        with fsspec.open(file) as stream, tarfile.open(fileobj=stream, mode="r|*") as archive:  # pyright: ignore
            for member in archive:
                looked_at += 1
                column = _column(member.name)
                if member.isfile() and column and column not in found:
                    suffix = column.rpartition(".")[2].lower()
                    if suffix in ("pth", "pt", "pickle", "pkl"):
                        raise UsageError(f"{file} holds {member.name!r}: pickled files are not read.")
                    if suffix in WebDataset.IMAGE_EXTENSIONS:
                        found[column] = Image(decode=False)
                    elif suffix in WebDataset.AUDIO_EXTENSIONS:
                        found[column] = Audio(decode=False)
                    elif suffix in ("json", "jsn") and member.size <= LARGEST:
                        found[column] = _of_json(archive.extractfile(member))
                    elif suffix in ("txt", "text", "transcript"):
                        found[column] = Value("string")
                    else:
                        found[column] = Value("int64" if suffix in ("cls", "id", "index") else "binary")
                if looked_at >= LOOKED_AT:
                    break
        if looked_at >= LOOKED_AT:
            break
    return Features(found | {"__key__": Value("string"), "__url__": Value("string")})


def _column(name: str) -> str | None:
    """What follows the first dot of a file's name (the WebDataset convention)."""
    file = name.rpartition("/")[2]
    return file.partition(".")[2] or None if not file.startswith(".") else None


def _of_json(file: Any) -> Any:
    import pyarrow as pa
    from datasets import Features

    table = pa.Table.from_pylist([{"json": json.loads(file.read())}])
    return Features.from_arrow_schema(table.schema)["json"]
