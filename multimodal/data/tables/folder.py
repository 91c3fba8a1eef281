"""A folder of files as a table: files that share a stem are one row."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from typing import Any

from multimodal.core.errors import UsageError
from multimodal.data.tables.arrow import ArrowTable
from multimodal.data.tables.cells import CELL_FIELDS, encode_json_cell, unreadable_cell

TEXT_SUFFIXES = ("txt", "caption")
RESERVED_COLUMNS = ("key", "name", "folder")  # columns that are not suffixes


def folder_of_files(folder: str) -> ArrowTable:
    """Open all files in a folder and its subfolders as a table.

    Files that differ only in their suffix, such as ``cups/red.png`` and ``cups/red.txt``, are one row with the columns

    - ``key``: ``"cups/red"``; ``name``: ``"red"``; ``folder``: ``"cups"``, which often is the class; missing at the top;
    - one column for each suffix (``key file`` for ``.key``, and so on): the path relative to the folder, or for ``.txt``
      the text itself; missing if the row has no such file.

    Hidden files are left out.

    Raises:
        UsageError: two files would be one cell, as their suffixes differ in case only.

    Examples:
        >>> from pathlib import Path
        >>> _ = Path("red.png").write_bytes(b"..."), Path("red.txt").write_text("a red cup")
        >>> table = folder_of_files(".")
        >>> table.value(0, "name"), table.value(0, "png"), table.value(0, "txt")
        ('red', 'red.png', 'a red cup')
    """
    import datasets
    import fsspec

    system, root = fsspec.url_to_fs(folder)
    rows: dict[str, dict[str, Any]] = defaultdict(dict)
    suffixes = set()
    for path in sorted(system.find(root)):
        relative = posixpath.relpath(path, root)
        if any(part.startswith(".") for part in relative.split("/")):
            continue
        key, suffix = posixpath.splitext(relative)
        column = suffix[1:].lower() or "file"
        if column in RESERVED_COLUMNS:
            column = f"{column} file"
        if column in rows[key]:
            raise UsageError(
                f"The folder {folder!r} has two files for the column {column!r} of {key!r}: {relative!r} and one whose suffix"
                " differs in case only; rename one."
            )
        rows[key][column] = _text_cell(relative, system.cat_file(path)) if column in TEXT_SUFFIXES else relative
        suffixes.add(column)
    cells = {
        "key": list(rows),
        "name": [posixpath.basename(key) for key in rows],
        "folder": [posixpath.dirname(key) for key in rows],
    }
    cells |= {column: [row.get(column) for row in rows.values()] for column in sorted(suffixes)}
    string = datasets.Value("string")
    text = {field: datasets.Value("binary") if field == "bytes" else string for field in CELL_FIELDS}
    types = datasets.Features({column: text if column in TEXT_SUFFIXES else string for column in cells})
    return ArrowTable(folder, datasets.Dataset.from_dict(cells, types), folder, tuple(cells))


def _text_cell(file: str, content: bytes) -> dict[str, Any]:
    try:
        encoded = encode_json_cell(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        encoded = unreadable_cell("not UTF-8", f"the text {file} is not UTF-8 ({error}); save it as UTF-8.")
    return {"json": encoded, "bytes": None, "path": None}
