"""A folder of files as a table: files that share a stem are one row."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset

TEXT = ("txt", "caption")


def folder_of_files(folder: str) -> Dataset:
    """The files in a folder and below it.

    Files that differ in nothing but their suffix, as ``cups/red.png`` and ``cups/red.txt``, are one row with the columns

    - ``key``: ``"cups/red"``; ``name``: ``"red"``; ``folder``: ``"cups"``, which often is the class;
    - one for each suffix: the path relative to the folder, of ``.txt`` the text itself; missing where there is none.

    Hidden files are left out.
    """
    import datasets
    import fsspec

    system, root = fsspec.url_to_fs(folder)
    rows: dict[str, dict[str, str]] = defaultdict(dict)
    suffixes = set()
    for path in sorted(system.find(root)):
        relative = posixpath.relpath(path, root)
        if any(part.startswith(".") for part in relative.split("/")):
            continue
        key, suffix = posixpath.splitext(relative)
        column = suffix[1:].lower() or "file"
        rows[key][column] = system.cat_file(path).decode() if column in TEXT else relative
        suffixes.add(column)
    cells = {
        "key": list(rows),
        "name": [posixpath.basename(key) for key in rows],
        "folder": [posixpath.dirname(key) for key in rows],
    }
    return datasets.Dataset.from_dict(cells | {c: [row.get(c) for row in rows.values()] for c in sorted(suffixes)})
