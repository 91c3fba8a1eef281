"""From a cell that names a file to the file."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Any

from multimodal.core.errors import Unreadable
from multimodal.data.tables.addresses import is_remote, join

MAX_FILE_BYTES = 256 * 2**20  # bytes of a remote file


def resolve_file_cell(value: Any, base: str | None) -> Any:
    """What a processor that reads files is given for a cell: a ``Path``, or the bytes of a remote file.

    Args:
        value: the cell; one that is no string stays as it is.
        base: the folder or URL of the table; None: paths are as they stand.

    Raises:
        Unreadable: there is no such file, or the cell of a remote table points elsewhere than into its folder.
    """
    if not isinstance(value, str):
        return value
    if base is not None and is_remote(base):
        return _read_remote(base, value)
    path = Path(base or "") / value
    try:
        there = path.is_file()
    except (OSError, ValueError) as error:  # a name that is too long, or has a null character
        raise Unreadable("missing file", f"{value[:100]!r} is no name of a file ({error}).") from error
    if not there:
        raise Unreadable("missing file", f"the file {path} does not exist; paths are relative to the table's folder.")
    return path


def _read_remote(base: str, value: str) -> bytes:
    import fsspec

    if is_remote(value) or posixpath.isabs(value) or posixpath.normpath(value).startswith(".."):
        raise Unreadable("path outside the table", f"{value!r} does not lie in the folder of the table, {base}.")
    url = join(base, value)
    try:
        with fsspec.open(url, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)  # pyright: ignore[reportAttributeAccessIssue]
    except FileNotFoundError as error:
        raise Unreadable("missing file", f"the file {url} does not exist.") from error
    if len(data) > MAX_FILE_BYTES:
        raise Unreadable("too large", f"the file {url} is larger than {MAX_FILE_BYTES >> 20} MiB.")
    return data
