"""Errors of readers name what is at fault: the table, or the cache."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from multimodal.core.errors import MultimodalError
from multimodal.data.tables.open import open_table
from multimodal.data.tables.reader_errors import translate_reader_errors


def caused_by(cause: Exception) -> None:
    try:
        raise cause
    except OSError as inner:
        raise ValueError("generating the data set failed") from inner


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pairs.csv").write_text("a,b\n1,2\n")
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("MULTIMODAL_CACHE", str(tmp_path / "file" / "cache"))
    message = (
        rf"^The cache folder {tmp_path}/file/cache cannot be written: a part of the path is a file.*MULTIMODAL_CACHE to"
    )
    with pytest.raises(MultimodalError, match=message):
        open_table(str(tmp_path / "pairs.csv"))


@pytest.mark.parametrize(
    ("error", "at_fault"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "cache"),
        (OSError("Error writing bytes to file. Detail: [errno 28] No space left on device"), "cache"),
        (PermissionError(errno.EACCES, "Permission denied", "{cache}/tables"), "cache"),
        (PermissionError(errno.EACCES, "Permission denied", "{above}"), "cache"),  # the cache cannot be made there
        (PermissionError(errno.EACCES, "Permission denied", "pairs.csv"), "table"),
        (OSError("a codec is missing"), "table"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_what_the_system_refused_is_attributed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, at_fault: str, wrapped: bool
) -> None:
    monkeypatch.setenv("MULTIMODAL_CACHE", str(tmp_path / "cache"))
    if error.filename:
        error = type(error)(
            error.errno, error.strerror, error.filename.format(cache=tmp_path / "cache", above=tmp_path)
        )
    named = (
        rf"^The cache folder {tmp_path}/cache cannot" if at_fault == "cache" else "^The table 'pairs' cannot be read"
    )
    with pytest.raises(MultimodalError, match=named), translate_reader_errors("pairs"):
        caused_by(error) if wrapped else _raise(error)


def _raise(error: Exception) -> None:
    raise error
