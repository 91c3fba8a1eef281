"""A folder of files as a table: files that share a stem are one row."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from typing import Any

from multimodal.core.errors import UsageError
from multimodal.data.tables.arrow import ArrowTable
from multimodal.data.tables.cells import CELL_FIELDS, encode_json_cell, unreadable_cell

TEXT_SUFFIXES = ("txt", "caption")
RESERVED_COLUMNS = ("key", "name", "folder")  # columns that no file makes


def folder_of_files(folder: str) -> ArrowTable:
    """The files in a folder and below it.

    Files that differ in nothing but their suffix, as ``cups/red.png`` and ``cups/red.txt``, are one row with the columns

    - ``key``: ``"cups/red"``; ``name``: ``"red"``; ``folder``: ``"cups"``, which often is the class;
    - one for each suffix (``key file`` for ``.key``, and so on): the path relative to the folder, of ``.txt`` the text
      itself; missing where there is none.

    Hidden files are left out.
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
                " differs in capitals alone; rename one."
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
        found = encode_json_cell(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        found = unreadable_cell("not UTF-8", f"the text {file} is not UTF-8 ({error}); save it as that.")
    return {"json": found, "bytes": None, "path": None}
