"""Compressed table files: they are refused if they open to far more than tables do."""

from __future__ import annotations

import os
from collections.abc import Iterable

from multimodal.core.errors import MultimodalError
from multimodal.data.tables.addresses import is_remote
from multimodal.data.tables.source import COMPRESSED

MAX_RATIO = 200  # of opened to compressed bytes; tables of text have 3 to 20, of many equal cells up to 100
FREE_BYTES = 256 * 2**20  # that any file may open to
BLOCK_BYTES = 2**20


def check_compressed(files: Iterable[str]) -> None:
    """Check local compressed files before they are unpacked to the cache; they are read a block at a time.

    Raises:
        MultimodalError: a file opens to more than 256 MiB and more than 200 times its size.

    Examples:
        >>> import gzip
        >>> from pathlib import Path
        >>> _ = Path("shop.csv.gz").write_bytes(gzip.compress(b"title"))
        >>> check_compressed(["shop.csv.gz"])
    """
    import fsspec

    for file in files:
        if is_remote(file) or "::" in file or not file.lower().endswith(COMPRESSED):
            continue
        size, opened = os.path.getsize(file), 0
        limit = max(MAX_RATIO * size, FREE_BYTES)
        with fsspec.open(file, "rb", compression="infer") as stream:
            while block := stream.read(BLOCK_BYTES):  # pyright: ignore[reportAttributeAccessIssue]
                opened += len(block)
                if opened > limit:
                    raise MultimodalError(
                        f"{file} has {size:,} bytes and opens to more than {limit >> 20:,} MiB, over {MAX_RATIO} times as"
                        " many; tables do not. If you trust it, decompress it yourself and name the result"
                    )
