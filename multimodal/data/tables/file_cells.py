"""Cells that name files: from the name to the file."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Any

from multimodal.core.errors import Unreadable
from multimodal.core.files import ADDRESS, not_a_file
from multimodal.data.tables.addresses import is_remote, join

MAX_FILE_BYTES = 256 * 2**20  # of a remote file


def resolve_file_cell(value: Any, base: str | None) -> Any:
    """Return the input of a processor that reads files: a ``Path``, or the bytes of a remote file.

    Args:
        value: the cell; values other than strings are returned unchanged.
        base: the folder or URL of the table; None: paths are used as given.

    Raises:
        Unreadable: the file does not exist, is a folder, or the cell of a remote table points outside the table's folder; or
            the cell is an address, which is not fetched.

    Examples:
        >>> _ = Path("cup.png").write_bytes(b"...")
        >>> resolve_file_cell("cup.png", ".")
        PosixPath('cup.png')
    """
    if not isinstance(value, str):
        return value
    if base is not None and is_remote(base):
        return _read_remote(base, value)
    path = Path(base or "") / value
    try:
        exists = path.is_file()
    except (OSError, ValueError) as error:  # the name is too long or has a null character
        if ADDRESS.match(value):
            raise not_a_file(value, "the file") from error
        raise Unreadable("missing file", f"{value[:100]!r} is not a file name ({error}).") from error
    if not exists:
        hint = " Paths are relative to the table's folder."
        raise not_a_file(value if ADDRESS.match(value) else path, "the file", hint)
    return path


def _read_remote(base: str, value: str) -> bytes:
    import fsspec

    if is_remote(value) or posixpath.isabs(value) or posixpath.normpath(value).startswith(".."):
        raise Unreadable("path outside the table", f"{value!r} is not in the folder of the table, {base}.")
    url = join(base, value)
    try:
        with fsspec.open(url, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)  # pyright: ignore[reportAttributeAccessIssue]
    except IsADirectoryError as error:
        raise Unreadable("folder", f"the file {url} is a folder; give a file.") from error
    except FileNotFoundError as error:
        raise Unreadable("missing file", f"the file {url} does not exist.") from error
    if len(data) > MAX_FILE_BYTES:
        raise Unreadable("too large", f"the file {url} is larger than {MAX_FILE_BYTES >> 20} MiB.")
    return data
