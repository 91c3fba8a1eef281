"""Tables by name: find the files, choose the reader of the ``datasets`` library, and read.

1. a name -> ``locate`` -> ``Source``: the format and the addresses of its files, and the folder that cells are relative to;
2. a source -> ``open_table`` -> ``Table``, mapped from a cache on disk or in memory; or ``stream_rows`` for one file.
"""

from __future__ import annotations

import os
import posixpath
import re
import warnings
from collections.abc import Generator, Mapping, Sequence
from functools import partial
from glob import escape
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import unquote

from multimodal import datasets as builtin
from multimodal.core.errors import UsageError, suggest
from multimodal.core.files import default_cache, interrupted_replacement, no_such_table
from multimodal.core.manifests import EMBEDDINGS, PREPARED
from multimodal.core.progress import progress
from multimodal.core.table import Table
from multimodal.data.tables.addresses import BRACES, WEB, archive_of, expand_braces, is_remote, replace_path
from multimodal.data.tables.arrow import ArrowTable, class_name, class_names, without_decoding
from multimodal.data.tables.cache import copy_to_cache
from multimodal.data.tables.folder import folder_of_files
from multimodal.data.tables.reader_errors import translate_reader_errors
from multimodal.data.tables.source import READERS, Source, format_suffix
from multimodal.data.tables.webdataset import tar_columns

Access = Literal["mapped", "memory", "streamed"]

IN_MEMORY = "in memory"  # the name of a table without a name
MAX_HEADER_BYTES = 4 * 2**20  # of a CSV file, in which its header ends
STREAM_BATCH_ROWS = 256  # rows of a stream that are read together
GLOB_CHARACTERS = "[*?[]"  # of patterns


def open_table(table: Any, options: Mapping[str, Any] | None = None, access: Access = "mapped") -> Table:
    r"""Open a table by its name, or wrap an object in memory as a table.

    Args:
        table: "glyphs"; the path, pattern (``*.tar``, ``{000..010}.tar``) or fsspec URL of a CSV, TSV, JSON Lines or Parquet
            file or of WebDataset tar shards; a folder of such files, of a ``datasets`` data set saved to disk, that
            ``prepare_table`` or ``embed_table`` wrote, or of any other files (see ``folder_of_files``); ``hf:OWNER/NAME`` for
            a data set of the Hugging Face hub; or in Python a ``Table``, a ``datasets.Dataset``, a pandas ``DataFrame`` or a
            list of dicts.
        options: settings of the reader, named as in the ``datasets`` library (``delimiter``, ``encoding``, ...).
        access: "mapped": from a cache on disk, which is created when the table is first opened; "memory": in memory.

    Returns:
        The table; its rows are numbered in the order of the files.

    Raises:
        UsageError: no table has that name, or an option or ``access`` is unknown.
        MultimodalError: the files cannot be read.

    Examples:
        >>> from pathlib import Path
        >>> _ = Path("shop.csv").write_text("id,title\n007,a red cup\n")
        >>> table = open_table("shop.csv")
        >>> len(table), table.columns, table.value(0, "id")
        (1, ('id', 'title'), '007')
    """
    if access not in get_args(Access):
        raise UsageError(f"access {access!r} is not one of {', '.join(get_args(Access))}.")
    if isinstance(table, Table):
        return table
    if isinstance(table, os.PathLike):
        table = os.fspath(table)
    if not isinstance(table, str):
        return _open_in_memory(table)
    if table in builtin.TABLES:
        return builtin.load(table)
    table = _as_stored(table)
    import datasets
    import fsspec
    import pyarrow as pa

    with translate_reader_errors(table):
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
    with translate_reader_errors(table, source):
        # files in an archive have no date of their own that would show that a cached copy is outdated
        download_config = datasets.DownloadConfig(force_download=any("::" in file for file in source.files))
        with progress(f"Opening {table}"):
            make_reader = partial(_builder, source, source.files)
            builder = copy_to_cache(make_reader, Path(_cache()), source.files, download_config)
        pa.default_memory_pool().release_unused()  # memory that the copy to the cache used
        data = builder.as_dataset(split="train", in_memory=access == "memory")
        return ArrowTable(table, data, source.base, source.metadata_columns)


def stream_rows(source: Source, file: str) -> Generator[dict[str, Any]]:
    """Read the rows of one file of a source in order, as column -> cell."""
    with translate_reader_errors(file):
        try:
            rows = without_decoding(_builder(source, [file]).as_streaming_dataset(split="train"))
        except StopIteration:  # an empty file has no types
            return
        classes = class_names(rows.features)
        for block in rows.iter(
            batch_size=STREAM_BATCH_ROWS
        ):  # plain iteration would split the files over torch's workers
            columns = list(block)
            block |= {column: [class_name(classes[column], n) for n in block[column]] for column in classes}
            for cells in zip(*block.values(), strict=True):
                yield dict(zip(columns, cells, strict=True))


def _builder(source: Source, files: Sequence[str]) -> Any:
    """Construct the reader directly: ``load_dataset`` would report its call to the hub."""
    from datasets.packaged_modules.csv.csv import Csv

    from multimodal.data.tables.typed_readers import JsonReader, ParquetReader
    from multimodal.data.tables.webdataset_reader import TarReader

    readers = {"csv": Csv, "json": JsonReader, "parquet": ParquetReader, "webdataset": TarReader}
    if source.reader == "csv":
        from pandas.errors import ParserWarning

        # fields beyond the last column would be cut off
        warnings.filterwarnings("error", "Length of header or names does not match", ParserWarning)
    return readers[source.reader](cache_dir=_cache(), data_files=_data_files(files), **source.options)


def _data_files(files: Sequence[str]) -> Any:
    """Return files in the form that the ``datasets`` library accepts: it finds archives, but not chains."""
    from datasets.data_files import DataFilesDict, DataFilesList

    if not any("::" in file for file in files):
        return [escape(file) for file in files]  # "pairs [2].csv" is not a pattern
    archives = DataFilesList.from_patterns([escape(archive_of(file)) for file in files])
    return DataFilesDict({"train": DataFilesList(list(files), archives.origin_metadata)})


def locate(table: str, options: Mapping[str, Any] | None = None) -> Source:
    """Find the files of a table that consists of files, and the reader for their format.

    Args:
        table: path, pattern, folder or URL; see ``open_table``.
        options: settings of the reader, which override the defaults of the format.

    Raises:
        UsageError: there are no such files, their formats differ, or the format is unknown.
    """
    import fsspec

    if not consists_of_files(table):
        raise UsageError(
            f"The table {table!r} does not consist of table files, so it cannot be streamed: leave out"
            f" access: streamed{_files_of_hub(table)}."
        )
    table = _as_stored(table)
    with translate_reader_errors(table):
        system, path = fsspec.url_to_fs(table)
        if system.isdir(path):
            files, base = _shards_in(system, path), path
        else:
            files, base = _matching(table, system, path)
    if not files:
        raise no_such_table(
            table,
            f"{suggest(table, list(builtin.TABLES))} Or name a file ({', '.join(READERS)}), a folder, a URL, or"
            f" hf:OWNER/NAME as the table.{_searched_path_hint(table)}"
            f"{'' if is_remote(table) else interrupted_replacement(Path(table))}",
        )
    suffixes = {format_suffix(file) for file in files}
    if len(suffixes) > 1:
        raise UsageError(
            f"{table} contains several table formats ({', '.join(sorted(suffixes))}); select one with a pattern."
        )
    (suffix,) = suffixes
    if suffix not in READERS:
        raise UsageError(f"The format of the table {table!r} is unknown: it does not end in {', '.join(READERS)}.")
    reader, settings = READERS[suffix]
    addresses = tuple(replace_path(table, file, system) for file in files)
    if "sep" in (options or {}):  # an alias of delimiter
        settings = {key: value for key, value in settings.items() if key != "delimiter"}
    settings = settings | dict(options or {})
    metadata_columns: tuple[str, ...] | None = None
    with translate_reader_errors(table):
        if reader == "csv" and "features" not in settings:
            settings = _string_columns(addresses, settings)
        if reader == "webdataset":
            from multimodal.data.tables.webdataset_reader import cell_features

            columns = tar_columns(addresses)
            metadata_columns = columns.metadata
            settings |= {"features": cell_features(columns.names)}
    return Source(table, reader, settings, addresses, replace_path(table, base, system), metadata_columns)


def _matching(table: str, system: Any, path: str) -> tuple[list[str], str]:
    """Return the files that a path or pattern names, and the folder that cells are relative to.

    Raises:
        UsageError: there is no file for one of the names in braces.
    """
    if system.isfile(path):
        return [path], posixpath.dirname(path)
    files: list[str] = []
    names = expand_braces(path)
    for name in names:
        is_pattern = re.search(GLOB_CHARACTERS, name) and not system.isfile(name)
        found = sorted(str(file) for file in system.glob(name)) if is_pattern else [name]
        found = [file for file in found if system.isfile(file)]
        if len(names) > 1 and not found:
            raise UsageError(
                f"The table {table!r} names {name}, but there is no such file; all that it names must exist."
            )
        files += found
    starts = [found.start() for found in (re.search(GLOB_CHARACTERS, path), BRACES.search(path)) if found]
    return files, posixpath.dirname(path[: min(starts, default=None)])


def _as_stored(table: str) -> str:
    """Return an address as its file system has it, however people write spaces in it.

    A web server has ``%20``; in the URL of a local file, it is a space, unless the file itself is named so.
    """
    import fsspec

    if table.startswith(WEB):
        return table.replace(" ", "%20")
    if not table.startswith(("file://", "local://")) or "%" not in table:
        return table
    system, path = fsspec.url_to_fs(table)
    return table if system.exists(path) else unquote(table)


def _files_of_hub(table: str) -> str:
    return f", or name its files, as hf://datasets/{table[3:]}/**/*.parquet" if table.startswith("hf:") else ""


def _searched_path_hint(table: str) -> str:
    """Say where a relative path was searched."""
    return "" if is_remote(table) or os.path.isabs(table) else f" Searched for {os.path.abspath(table)}."


def consists_of_files(table: str) -> bool:
    """Return whether ``locate`` finds the table's files.

    False for tables of the package and of the hub, and for folders of a saved data set or of files other than tables.
    """
    import fsspec

    if table in builtin.TABLES or table.startswith("hf:"):
        return False
    with translate_reader_errors(table):
        system, path = fsspec.url_to_fs(_as_stored(table))
        return not system.isdir(path) or (not _is_saved_dataset(system, path) and bool(_shards_in(system, path)))


def _is_saved_dataset(system: Any, folder: str) -> bool:
    """Return whether the ``datasets`` library saved the folder."""
    return any(system.exists(posixpath.join(folder, name)) for name in ("state.json", "dataset_dict.json"))


def _string_columns(files: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that read every cell as text: "007" and "NA" are kept; an empty cell is missing.

    Raises:
        UsageError: the columns of the files differ.
    """
    from datasets import Features, Value
    from datasets.packaged_modules.csv.csv import CsvConfig

    # without index_col, the first field of a row with one field too many would be an index, which shifts its columns
    settings = {"keep_default_na": False, "na_values": [""], "index_col": False} | dict(settings)
    reading = CsvConfig(**settings).pd_read_csv_kwargs | {"nrows": 0, "chunksize": None, "dtype": str}
    columns = _header(files[0], reading)
    for file in files[1:]:
        others = _header(file, reading)
        if set(others) != set(columns):
            raise UsageError(
                f"{file} has the columns {', '.join(others)}, but {files[0]} has {', '.join(columns)}: all files of a table"
                " must have the same columns."
            )
    return settings | {"features": Features({column: Value("string") for column in columns})}


def _header(file: str, reading: Mapping[str, Any]) -> list[str]:
    """Return the columns that the beginning of a CSV file names; to pandas, a long first row is part of its beginning."""
    import fsspec
    import pandas as pd

    compression = reading.get("compression", "infer")
    with fsspec.open(file, "rb", compression=compression) as stream:
        start = stream.read(MAX_HEADER_BYTES)  # pyright: ignore[reportAttributeAccessIssue]
    found = pd.read_csv(BytesIO(start), **dict(reading) | {"compression": None, "encoding_errors": "replace"})
    return [str(column) for column in found.columns]


def _open_in_memory(table: Any) -> ArrowTable:
    import datasets
    import pandas as pd
    import pyarrow as pa

    from multimodal.data.tables.other_types import dataset_of

    if isinstance(table, pd.DataFrame):
        columns = {str(name): cells.tolist() for name, cells in table.items() if cells.dtype == object}
        with translate_reader_errors("rows", columns=columns):
            table = dataset_of(pa.Table.from_pandas(table, preserve_index=False))
    elif isinstance(table, list) and all(isinstance(row, dict) for row in table):
        names = dict.fromkeys(name for row in table for name in row)
        columns = {name: [row.get(name) for row in table] for name in names}
        with translate_reader_errors("rows", columns=columns):
            try:
                table = datasets.Dataset.from_dict(columns)
            except ValueError as error:
                if "datasets dtype" not in str(error):
                    raise
                table = dataset_of(pa.table(columns))
    if not isinstance(table, datasets.Dataset):
        raise UsageError(
            f"{type(table).__name__} is not a table; give a name, a Table, a datasets.Dataset, a DataFrame or a list of dicts."
        )
    return ArrowTable(IN_MEMORY, table)


def _concatenate_splits(data: Any) -> Any:
    """Return a data set; several splits become one, with a column ``split`` that names the split."""
    import datasets

    if not isinstance(data, datasets.DatasetDict):
        return data
    named = [
        part if "split" in part.column_names else part.add_column("split", [str(name)] * len(part))
        for name, part in data.items()
    ]
    return datasets.concatenate_datasets(named)


def _shards_in(system: Any, folder: str) -> list[str]:
    """Return the table files directly in a folder; for a folder that ``prepare`` or ``embed`` wrote, the shards only.

    A ``.json`` file is a table only if the folder contains nothing else: next to tables or images, it describes those.
    """
    files = sorted(str(file) for file in system.ls(folder, detail=False))
    ours = any(posixpath.basename(file) in (PREPARED, EMBEDDINGS) for file in files)
    suffixes = (".parquet", ".tar") if ours else READERS
    shards = [file for file in files if format_suffix(file) in suffixes and system.isfile(file)]
    tables = [file for file in shards if format_suffix(file) != ".json"]
    if tables or not shards:
        return tables
    everything = {str(file) for file in system.find(folder) if not posixpath.basename(str(file)).startswith(".")}
    return shards if everything == set(shards) else []


def _cache() -> str:
    return str(default_cache() / "tables")
