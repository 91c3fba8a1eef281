"""Translation of a reader's exceptions into one-line messages."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyarrow import ArrowInvalid

from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.files import default_cache
from multimodal.core.system_errors import OF_WRITING, system_fault
from multimodal.data.tables.source import Source, format_suffix
from multimodal.data.tables.whole_numbers import ChangedNumber, find_changed_number

# of libraries, for whole numbers that a column cannot hold
NUMBER_ERRORS = ("exactly representable", "not in range: -9007199254740992", "too large to convert", "too big to")


@contextmanager
def translate_reader_errors(
    table: str, source: Source | None = None, columns: Mapping[str, Iterable[Any]] | None = None
) -> Iterator[None]:
    """Turn any exception of a reader into a one-line error that names the table, and for JSON Lines the invalid line.

    Args:
        table: name of the table.
        source: the files that are read, if known; they are searched for the invalid line.
        columns: the values of a table in memory, which are searched for numbers that it cannot hold.

    Raises:
        UsageError: an option of the reader is unknown.
        MultimodalError: the table cannot be read, or the cache cannot be written.
    """
    import datasets

    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what it logs as an error is in the exception
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        yield
    except MultimodalError:
        raise
    except (OverflowError, ArrowInvalid) as error:
        cause = find_changed_number(columns or {}) or error
        raise MultimodalError(_reader_error_message(table, cause, source)) from error
    except (TypeError, ValueError) as error:
        if "BuilderConfig" in str(error) or "unexpected keyword" in str(error):
            raise UsageError(f"options for the table {table!r}: {error}") from error
        _raise_if_of_cache(table, error)
        raise MultimodalError(_reader_error_message(table, error, source)) from error
    except Exception as error:  # readers of many formats raise many types of exceptions
        if isinstance(cause := _root_cause(error), UsageError):
            raise cause from None
        _raise_if_of_cache(table, error)
        raise MultimodalError(_reader_error_message(table, error, source)) from error


def _raise_if_of_cache(table: str, error: Exception) -> None:
    """Raise an error that names the cache if it could not be written: readers write nothing else."""
    fault = system_fault(error)
    if fault is None or fault.code == errno.ENOENT:
        return
    cache = default_cache().absolute()
    in_cache = fault.file is not None and (cache.is_relative_to(fault.file) or Path(fault.file).is_relative_to(cache))
    if in_cache or (fault.file is None and fault.code in OF_WRITING):
        raise MultimodalError(
            f"The cache folder {cache} cannot be written: {fault.advice}. It keeps a copy of the table {table!r}; set"
            " MULTIMODAL_CACHE to another folder."
        ) from error


def _root_cause(error: BaseException) -> BaseException:
    """Return the exception that the datasets library wrapped."""
    while error.__cause__ is not None and not isinstance(error, MultimodalError):
        error = error.__cause__
    return error


def _broken_line(source: Source | None) -> str:
    """Describe the first invalid line of JSON Lines files: their reader only reports its position within a block."""
    import fsspec

    for file in source.files if source is not None else ():
        if format_suffix(file) not in (".jsonl", ".ndjson"):
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
    if isinstance(error, MultimodalError | ChangedNumber):
        return f"The table {table!r} cannot be read: {error}."
    if "Length of header or names" in str(error):
        return (
            f"The table {table!r} has rows with more fields than its header; name all columns, or quote the delimiter."
        )
    type_mismatch = isinstance(error, CastError) or "cast array of type" in str(error)
    if any(text in str(error) for text in NUMBER_ERRORS):
        hint = " Write whole numbers of more than 64 bits, or of more than 53 next to fractions, as text."
    elif isinstance(error, UnicodeDecodeError) or "Invalid UTF8" in str(error):
        hint = " Set options.encoding."
    elif not type_mismatch:
        hint = _broken_line(source)
    elif source is not None and len(source.files) > 1:
        hint = " The files of a table must have the same columns, with values of the same types."
    else:
        hint = (
            " If some keys or values first appear late in a JSON Lines file, set options.chunksize to its size in"
            " bytes: the column types are inferred from the first chunk, of 10 MB by default. A Parquet file stores its"
            " types."
        )
    message = " ".join(str(error).split())
    return f"The table {table!r} cannot be read ({type(error).__name__}: {message}).{hint}"
