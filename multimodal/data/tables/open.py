"""Opening tables by name: what is there, which reader of the ``datasets`` library takes it, and how.

1. a name -> ``locate`` -> ``Source``: the kind of its files, their addresses, the folder that their cells are relative to;
2. a source -> ``open_table`` -> ``Table`` (mapped from a cache on disk, or in memory), or ``stream_rows`` one of its files.
"""

from __future__ import annotations

import os
import posixpath
import re
import warnings
from collections.abc import Generator, Mapping, Sequence
from glob import escape
from typing import Any, Literal

from multimodal import datasets as builtin
from multimodal.core.errors import UsageError, suggest
from multimodal.core.files import default_cache
from multimodal.core.table import Table
from multimodal.data.tables.addresses import archive_of, is_remote, replace_path
from multimodal.data.tables.arrow import ArrowTable, class_name, class_names, without_decoding
from multimodal.data.tables.folder import folder_of_files
from multimodal.data.tables.reader_errors import _told
from multimodal.data.tables.source import READERS, Source, _suffix
from multimodal.data.tables.webdataset import tar_columns

Access = Literal["mapped", "memory", "streamed"]

PREPARED_MARKER = "prepare.json"  # tells a folder that ``multimodal prepare`` wrote
STREAM_BATCH_ROWS = 256  # rows of a stream
GLOB_CHARACTERS = "*?["  # of patterns


def open_table(table: Any, options: Mapping[str, Any] | None = None, access: Access = "mapped") -> Table:
    """A table by its name, or one that is at hand.

    Args:
        table: "glyphs"; the path, pattern or fsspec URL of a CSV, TSV, JSON Lines or Parquet file or of WebDataset tar
            shards; a folder of such files, of a ``datasets`` data set saved to disk, or of any other files (see
            ``folder_of_files``); ``hf:OWNER/NAME`` for a data set of the Hugging Face hub; or in Python a ``Table``, a
            ``datasets.Dataset``, a pandas ``DataFrame`` or a list of dicts.
        options: settings of the reader, by the names of the ``datasets`` library (``delimiter``, ``encoding``, ...).
        access: "mapped": from a cache on disk, made at the first opening; "memory": kept in memory.

    Raises:
        UsageError: there is nothing of that name, or an option is unknown.
        MultimodalError: the files cannot be read.
    """
    if isinstance(table, Table):
        return table
    if not isinstance(table, str):
        return _open_in_memory(table)
    if table in builtin.TABLES:
        return builtin.load(table)
    import datasets
    import fsspec
    import pyarrow as pa

    with _told(table):
        if table.startswith("hf:"):
            data = datasets.load_dataset(table[3:], cache_dir=_cache(), **(options or {}))
            return ArrowTable(table, _concatenate_splits(data))
        files, path = fsspec.url_to_fs(table)
        if files.isdir(path):
            if _is_saved_dataset(files, path):
                return ArrowTable(table, _concatenate_splits(datasets.load_from_disk(table)), table)
            if not _shards_in(files, path):
                return folder_of_files(table)
    source = locate(table, options)
    with _told(table, source):
        builder = _builder(source, source.files)
        # a file in an archive has no date of its own that would tell that a copy of it is old
        again = datasets.DownloadConfig(force_download=any("::" in file for file in source.files))
        builder.download_and_prepare(download_config=again)
        pa.default_memory_pool().release_unused()  # what the copy to the cache took
        data = builder.as_dataset(split="train", in_memory=access == "memory")
        return ArrowTable(table, data, source.base, source.metadata_columns)


def stream_rows(source: Source, file: str) -> Generator[dict[str, Any]]:
    """The rows of one file of a source, in their order, as they are read."""
    with _told(file):
        try:
            rows = without_decoding(_builder(source, [file]).as_streaming_dataset(split="train"))
        except StopIteration:  # an empty file has no types
            return
        classes = class_names(rows.features)
        for block in rows.iter(batch_size=STREAM_BATCH_ROWS):  # plain iteration would deal the files to torch's workers
            columns = list(block)
            block |= {column: [class_name(classes[column], n) for n in block[column]] for column in classes}
            for cells in zip(*block.values(), strict=True):
                yield dict(zip(columns, cells, strict=True))


def _builder(source: Source, files: Sequence[str]) -> Any:
    """The reader itself: ``load_dataset`` would tell the hub that it was called."""
    from datasets.packaged_modules.csv.csv import Csv

    from multimodal.data.tables.typed_readers import JsonReader, ParquetReader
    from multimodal.data.tables.webdataset_reader import TarReader

    readers = {"csv": Csv, "json": JsonReader, "parquet": ParquetReader, "webdataset": TarReader}
    if source.reader == "csv":
        from pandas.errors import ParserWarning

        # what stands beyond the last column would be cut off
        warnings.filterwarnings("error", "Length of header or names does not match", ParserWarning)
    return readers[source.reader](cache_dir=_cache(), data_files=_data_files(files), **source.options)


def _data_files(files: Sequence[str]) -> Any:
    """Files as the ``datasets`` library takes them: it knows no chains, but what they begin from."""
    from datasets.data_files import DataFilesDict, DataFilesList

    if not any("::" in file for file in files):
        return [escape(file) for file in files]  # "pairs [2].csv" is no pattern
    known = DataFilesList.from_patterns([escape(archive_of(file)) for file in files])
    return DataFilesDict({"train": DataFilesList(list(files), known.origin_metadata)})


def locate(table: str, options: Mapping[str, Any] | None = None) -> Source:
    """The files of a table of files, with the reader that takes them.

    Raises:
        UsageError: nothing is there, or it is of no known kind.
    """
    import fsspec

    if not consists_of_files(table):
        raise UsageError(
            f"The table {table!r} does not consist of table files, so it cannot be read from end to end: leave out"
            f" data.access: streamed{_files_of_hub(table)}."
        )
    with _told(table):
        system, path = fsspec.url_to_fs(table)
        if system.isdir(path):
            found, base = _shards_in(system, path), path
        else:
            is_pattern = any(c in path for c in GLOB_CHARACTERS) and not system.isfile(path)
            found = sorted(str(file) for file in system.glob(path)) if is_pattern else [path]
            found = [file for file in found if system.isfile(file)]
            base = posixpath.dirname(re.split("[*?[]", path)[0] if is_pattern else path)
    if not found:
        raise UsageError(
            f"There is no table {table!r}: no file or folder of that name."
            f"{suggest(table, list(builtin.TABLES))} Or name a file ({', '.join(READERS)}), a folder, a URL, or"
            f" hf:OWNER/NAME as data.table.{_searched_path_hint(table)}"
        )
    suffixes = {_suffix(file) for file in found}
    if len(suffixes) > 1:
        raise UsageError(
            f"{table} holds several kinds of tables ({', '.join(sorted(suffixes))}); name one, as a pattern."
        )
    (suffix,) = suffixes
    if suffix not in READERS:
        raise UsageError(f"The table {table!r} ends in none of {', '.join(READERS)}, so its format is not known.")
    reader, settings = READERS[suffix]
    addresses = tuple(replace_path(table, file, system) for file in found)
    if "sep" in (options or {}):  # another name of it
        settings = {key: value for key, value in settings.items() if key != "delimiter"}
    settings = settings | dict(options or {})
    described: tuple[str, ...] | None = None
    with _told(table):
        if reader == "csv" and "features" not in settings:
            settings = _string_columns(addresses, settings)
        if reader == "webdataset":
            from multimodal.data.tables.webdataset_reader import cell_features

            columns = tar_columns(addresses)
            described = columns.described
            settings |= {"features": cell_features(columns.names)}
    return Source(table, reader, settings, addresses, replace_path(table, base, system), described)


def _files_of_hub(table: str) -> str:
    return f", or name its files, as hf://datasets/{table[3:]}/**/*.parquet" if table.startswith("hf:") else ""


def _searched_path_hint(table: str) -> str:
    """Where a relative path was looked for."""
    return "" if is_remote(table) or os.path.isabs(table) else f" {os.path.abspath(table)} was looked for."


def consists_of_files(table: str) -> bool:
    """Whether a table is one of files that ``locate`` finds: not one that comes with the package, of the hub, or a folder
    that is a table otherwise.
    """
    import fsspec

    if table in builtin.TABLES or table.startswith("hf:"):
        return False
    with _told(table):
        system, path = fsspec.url_to_fs(table)
        return not system.isdir(path) or (not _is_saved_dataset(system, path) and bool(_shards_in(system, path)))


def _is_saved_dataset(system: Any, folder: str) -> bool:
    """Whether the ``datasets`` library saved the folder."""
    return any(system.exists(posixpath.join(folder, name)) for name in ("state.json", "dataset_dict.json"))


def _string_columns(files: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that read each cell as the text that it is: "007" stays itself, "NA" too; an empty cell is missing.

    Raises:
        UsageError: the files have not the same columns.
    """
    import pandas as pd
    from datasets import Features, Value
    from datasets.packaged_modules.csv.csv import CsvConfig

    # without index_col a row with a field too many would begin with a name of its own, all its columns one further left
    settings = {"keep_default_na": False, "na_values": [""], "index_col": False} | dict(settings)
    reading = CsvConfig(**settings).pd_read_csv_kwargs | {"nrows": 0, "chunksize": None, "dtype": str}
    columns = [str(column) for column in pd.read_csv(files[0], **reading).columns]
    for file in files[1:]:
        others = [str(column) for column in pd.read_csv(file, **reading).columns]
        if set(others) != set(columns):
            raise UsageError(
                f"{file} has the columns {', '.join(others)}, and {files[0]} {', '.join(columns)}: the files of a table have"
                " the same."
            )
    return settings | {"features": Features({column: Value("string") for column in columns})}


def _open_in_memory(table: Any) -> ArrowTable:
    import datasets
    import pandas as pd

    if isinstance(table, pd.DataFrame):
        with _told("rows"):
            table = datasets.Dataset.from_pandas(table, preserve_index=False)
    elif isinstance(table, list) and all(isinstance(row, dict) for row in table):
        with _told("rows"):
            columns = dict.fromkeys(name for row in table for name in row)
            table = datasets.Dataset.from_dict({name: [row.get(name) for row in table] for name in columns})
    if not isinstance(table, datasets.Dataset):
        raise UsageError(
            f"A {type(table).__name__} is no table; give a name, a Table, a datasets.Dataset, a DataFrame or a list of dicts."
        )
    return ArrowTable("in memory", table)


def _concatenate_splits(data: Any) -> Any:
    """A data set; of several splits one, with a column ``split`` that names them."""
    import datasets

    if not isinstance(data, datasets.DatasetDict):
        return data
    named = [
        part if "split" in part.column_names else part.add_column("split", [str(name)] * len(part))
        for name, part in data.items()
    ]
    return datasets.concatenate_datasets(named)


def _shards_in(system: Any, folder: str) -> list[str]:
    """The table files that lie directly in a folder; of a prepared one the shards alone.

    A ``.json`` file is a table only where nothing else is: beside tables it tells something of them, beside pictures of one.
    """
    files = sorted(str(file) for file in system.ls(folder, detail=False))
    prepared = any(posixpath.basename(file) == PREPARED_MARKER for file in files)
    kinds = (".parquet", ".tar") if prepared else READERS
    found = [file for file in files if _suffix(file) in kinds and system.isfile(file)]
    tables = [file for file in found if _suffix(file) != ".json"]
    if tables or not found:
        return tables
    everything = {str(file) for file in system.find(folder) if not posixpath.basename(str(file)).startswith(".")}
    return found if everything == set(found) else []


def _cache() -> str:
    return str(default_cache() / "tables")
