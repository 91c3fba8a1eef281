"""What a reader's exception means, in one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from multimodal.core.errors import MultimodalError, UsageError
from multimodal.data.tables.source import Source, _suffix


@contextmanager
def _told(table: str, source: Source | None = None) -> Iterator[None]:
    """Whatever a reader raises becomes one line that names the table, and the line of its source where one is broken."""
    import datasets

    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what it logs as an error is in the exception
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        yield
    except MultimodalError:
        raise
    except (TypeError, ValueError) as error:
        if "BuilderConfig" in str(error) or "unexpected keyword" in str(error):
            raise UsageError(f"data.options for the table {table!r}: {error}") from error
        raise MultimodalError(_reader_error_message(table, error, source)) from error
    except Exception as error:  # readers for many formats raise as many kinds
        if isinstance(cause := _root_cause(error), UsageError):
            raise cause from None
        raise MultimodalError(_reader_error_message(table, error, source)) from error


def _root_cause(error: BaseException) -> BaseException:
    """What went wrong: the datasets library wraps it."""
    while error.__cause__ is not None and not isinstance(error, MultimodalError):
        error = error.__cause__
    return error


def _broken_line(source: Source | None) -> str:
    """Of JSON Lines the first that is none: their reader says no more than where it is in a block."""
    import fsspec

    for file in source.files if source is not None else ():
        if _suffix(file) not in (".jsonl", ".ndjson"):
            continue
        with fsspec.open(file, "rb", compression="infer") as lines:
            for number, line in enumerate(lines, start=1):  # pyright: ignore[reportArgumentType]
                try:
                    json.loads(line) if line.strip() else None
                except ValueError as error:
                    return f" Line {number} of {file} is not JSON: {error}."
    return ""


def _reader_error_message(table: str, error: BaseException, source: Source | None) -> str:
    from datasets.table import CastError

    error = _root_cause(error)
    if isinstance(error, StopIteration) or "corresponds to no data" in str(error):
        return f"The table {table!r} has no rows."
    if isinstance(error, MultimodalError):
        return f"The table {table!r} cannot be read: {error}."
    if "Length of header or names" in str(error):
        return f"The table {table!r} has rows of more fields than its header names; name all columns, or quote the delimiter."
    uneven = isinstance(error, CastError) or "cast array of type" in str(error)
    if isinstance(error, UnicodeDecodeError) or "Invalid UTF8" in str(error):
        hint = " Set data.options.encoding."
    elif not uneven:
        hint = _broken_line(source)
    elif source is not None and len(source.files) > 1:
        hint = " The files of a table have the same columns, with values of the same types."
    else:
        hint = (
            " Where some keys, or the values of some, come late in a JSON Lines file, set data.options.chunksize to its size"
            " in bytes: its types are those of the first chunk, of 10 MB by default. A Parquet file has types of its own."
        )
    told = " ".join(str(error).split())
    return f"The table {table!r} cannot be read ({type(error).__name__}: {told}).{hint}"
