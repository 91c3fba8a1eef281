"""WebDataset tar shards: their columns, and the cells of a sample.

A sample is the files whose names are equal up to the first dot. ``12.photo.png`` is in its column ``photo``, ``12.png`` in
its column ``png``; the keys of the mapping in ``12.json`` are columns too, except where a file has the value. If samples
have two files of one name (``12.left.png``, ``12.left.txt``), these columns keep their suffixes. ``.txt`` files are texts,
``.cls`` files are integers; any other file is bytes. Pickled files are left out.

The cells of all columns have one Arrow type with the fields ``CELL_FIELDS``, as a column may contain both files and JSON.
"""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from tarfile import BLOCKSIZE, EOFHeaderError, HeaderError, ReadError  # type: ignore[attr-defined]
from typing import IO, Any, Self, cast
from urllib.parse import unquote

from multimodal.core.errors import UsageError
from multimodal.data.tables.cells import encode_json_cell, unreadable_cell
from multimodal.data.tables.file_cells import MAX_FILE_BYTES

KEY, ADDRESS = "__key__", "__url__"
SAMPLED_MEMBERS = 2_000  # a column that is in none of these members is not found
MAX_JSON_BYTES = 64 * 2**20  # larger JSON files are not read
MAX_COLUMNS = 1_000
MAX_KEYS_CHECKED = 1_000_000  # of a tar, for samples whose files are not next to each other
CHUNK_BYTES = 2**20
JSON_SUFFIXES = ("json", "jsn")
TEXT_SUFFIXES = ("txt", "text", "transcript", "caption")
INTEGER_SUFFIXES = ("cls", "cls2", "class", "count", "index", "inx", "id")
PICKLE_SUFFIXES = ("pth", "pt", "pyd", "pickle", "pkl")

Member = tuple[str, bytes | None]  # the name after the first dot, and the content if it was read


@dataclass(frozen=True)
class TarColumns:
    """The columns of tar shards.

    Attributes:
        names: all columns.
        metadata: the columns that describe a row to users.
    """

    names: tuple[str, ...]
    metadata: tuple[str, ...]


def tar_columns(files: Sequence[str]) -> TarColumns:
    """Find the columns of tar shards from their first ``SAMPLED_MEMBERS`` members.

    Raises:
        UsageError: there are more than ``MAX_COLUMNS`` columns, or a file is truncated.
    """
    readable: dict[str, bool] = {}  # column -> whether users can read its values
    ambiguous: dict[str, list[str]] = {}  # column -> the suffixes of its files, if a sample has several
    suffixes: dict[str, dict[str, None]] = defaultdict(dict)
    for _, members in group_members(islice(_members(files), SAMPLED_MEMBERS)):
        suffixes_of_column: dict[str, list[str]] = defaultdict(list)
        for suffix, content in members:
            if suffix.lower() in JSON_SUFFIXES:
                for name, value in (_parse_json_columns(content) or {}).items():
                    readable[name] = readable.get(name, False) or isinstance(value, str | int | float)
            elif _suffix(suffix) not in PICKLE_SUFFIXES:
                column = _column(suffix)
                suffixes_of_column[column].append(suffix)
                suffixes[column][suffix] = None
                is_text = _suffix(suffix) in (*TEXT_SUFFIXES, *INTEGER_SUFFIXES)
                readable[column] = readable.get(column, False) or is_text
        ambiguous |= {column: several for column, several in suffixes_of_column.items() if len(set(several)) > 1}
    for column in ambiguous:
        del readable[column]
        readable |= {suffix: _suffix(suffix) in (*TEXT_SUFFIXES, *INTEGER_SUFFIXES) for suffix in suffixes[column]}
    names = [name for name in readable if name not in (KEY, ADDRESS) and _utf8_safe(name) == name]
    if len(names) > MAX_COLUMNS:
        raise UsageError(
            f"{files[0]} has {len(names):,} columns, more than {MAX_COLUMNS:,}: the keys in its JSON files differ;"
            " use the same keys."
        )
    return TarColumns((*names, KEY, ADDRESS), (*(name for name in names if readable[name]), KEY))


def group_members(members: Iterable[Member], file: str | None = None) -> Iterator[tuple[str, list[Member]]]:
    """Group files in the order of the tar into samples, each with its key and members.

    Args:
        members: name and content of each file.
        file: name of the tar whose order is checked; None: it is not checked, as the members are of several.

    Raises:
        UsageError: the files of a sample are not next to each other: a key comes again, with other suffixes.

    Examples:
        >>> list(group_members([("shop/1.png", b"..."), ("shop/1.txt", b"a cup"), ("shop/2.txt", b"a jug")]))
        [('shop/1', [('png', b'...'), ('txt', b'a cup')]), ('shop/2', [('txt', b'a jug')])]
    """
    split = ((*_key_and_suffix(name), content) for name, content in members)
    suffixes_of: dict[str, tuple[str, ...]] = {}
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}  # most samples have the same suffixes
    for key, parts in groupby((part for part in split if part[0]), key=lambda part: part[0]):
        sample = [(suffix, content) for _, suffix, content in parts]
        suffixes = tuple(suffix for suffix, _ in sample)
        before = suffixes_of.get(key)
        if file is not None and before is not None and not set(before) & set(suffixes):
            raise UsageError(
                f"{file}: the files of the sample {key!r} are not next to each other ({', '.join(before)}, and later"
                f" {', '.join(suffixes)}). Sort it: `mkdir x && tar -xf {posixpath.basename(file)} -C x && tar --sort=name -cf"
                f" sorted.tar -C x .`"
            )
        if before is None and len(suffixes_of) < MAX_KEYS_CHECKED:
            suffixes_of[key] = shared.setdefault(suffixes, suffixes)
        yield key, sample


def cells_of(key: str, members: Sequence[Member], columns: Sequence[str]) -> dict[str, Any]:
    """Return column -> cell for one sample.

    Args:
        key: key of the sample.
        members: suffix and content of each of its files.
        columns: the columns of the table.

    Returns:
        For each column a mapping with the fields ``CELL_FIELDS``, or None if missing; for ``KEY`` a string.
    """
    known = set(columns)
    cells: dict[str, Any] = dict.fromkeys(columns)
    json_values: dict[str, Any] = {}
    broken: dict[str, Any] | None = None
    for suffix, content in members:
        if suffix.lower() in JSON_SUFFIXES:
            values = _parse_json_columns(content)
            if values is None:
                broken = _json_cell(
                    unreadable_cell(
                        "not JSON", f"{key}.{suffix} is not JSON, or larger than {MAX_JSON_BYTES >> 20} MiB."
                    )
                )
            json_values |= values or {}
            continue
        column = suffix if suffix in known else _column(suffix)
        if column in known and _suffix(suffix) not in PICKLE_SUFFIXES:
            duplicate = unreadable_cell("two files of one column", f"the sample {key} has two files for {column!r}.")
            cells[column] = _cell(key, suffix, content) if cells[column] is None else _json_cell(duplicate)
    for column in columns:
        if cells[column] is None and column not in (KEY, ADDRESS):
            value = json_values.get(column)
            value = None if value != value else value  # NaN is missing
            cells[column] = broken if value is None else _json_cell(encode_json_cell(value))
    json_key = json_values.get(KEY)
    cells[KEY] = _utf8_safe(json_key if isinstance(json_key, str) else key)
    return cells


def _cell(key: str, suffix: str, content: bytes | None) -> dict[str, Any]:
    if content is None:
        return _json_cell(unreadable_cell("too large", f"{key}.{suffix} is larger than {MAX_FILE_BYTES >> 20} MiB."))
    last_suffix = _suffix(suffix)
    try:
        if last_suffix in TEXT_SUFFIXES:
            return _json_cell(encode_json_cell(content.decode("utf-8-sig")))
        if last_suffix in INTEGER_SUFFIXES:
            return _json_cell(encode_json_cell(int(content)))
    except ValueError as error:
        reason = "not UTF-8" if last_suffix in TEXT_SUFFIXES else "not a number"
        return _json_cell(unreadable_cell(reason, f"{key}.{suffix} cannot be read ({error})."))
    return {"json": None, "bytes": content, "path": _utf8_safe(f"{posixpath.basename(key)}.{suffix}")}


def _utf8_safe(name: str) -> str:
    """Replace characters of a name that UTF-8 cannot encode: names of files may contain any bytes."""
    return name.encode("utf-8", "backslashreplace").decode()


def _json_cell(text: str) -> dict[str, Any]:
    return {"json": text, "bytes": None, "path": None}


def _parse_json_columns(content: bytes | None) -> dict[str, Any] | None:
    """Return column -> value for a JSON file; a value other than a mapping is in the column ``json``. None: invalid."""
    try:
        parsed = json.loads(content) if content is not None and len(content) <= MAX_JSON_BYTES else None
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else {"json": parsed} if parsed is not None else None


def _members(files: Sequence[str]) -> Iterator[Member]:
    """Read the names of members, and the contents of JSON files only."""
    import fsspec

    for file in files:
        with fsspec.open(file) as stream:
            yield from read_members(
                file,
                stream,  # pyright: ignore
                lambda member: _suffix(member.name) in JSON_SUFFIXES and member.size <= MAX_JSON_BYTES,
            )


def is_wanted_member(member: tarfile.TarInfo) -> bool:
    """Return whether cells are read from a member: it is not too large and not a pickle."""
    return member.size <= MAX_FILE_BYTES and _suffix(member.name) not in PICKLE_SUFFIXES


def read_members(
    file: str, stream: IO[bytes], wanted: Callable[[tarfile.TarInfo], bool] = is_wanted_member
) -> Iterator[Member]:
    """Read the name and content of each file of a tar, except hidden files and files that start with ``__``.

    Args:
        file: name of the tar, for errors.
        stream: the tar, read sequentially; it may be compressed.
        wanted: whether to read the content of a member; otherwise its content is None.

    Raises:
        UsageError: the stream is not a tar, it is truncated, or its end mark is missing or in its middle.
    """
    try:
        with tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Header) as archive:
            for member in archive:
                if member.isfile() and not posixpath.basename(member.name).startswith((".", "__")):
                    content = archive.extractfile(member) if wanted(member) else None
                    yield member.name, content.read() if content else None
                archive.members = []  # type: ignore[attr-defined]  (otherwise it keeps all headers)
            _check_end(file, archive)
    except (tarfile.TarError, EOFError) as error:
        raise UsageError(f"{file} is not a tar, or it is truncated ({error}); copy it again.") from error


def _check_end(file: str, archive: tarfile.TarFile) -> None:
    """Check that a tar ends where its reader stopped, at the first block of zeros: two of them, and only zeros after them."""
    stream = cast("IO[bytes]", archive.fileobj)  # after that block
    zeros = 0
    while chunk := stream.read(CHUNK_BYTES):
        if chunk.count(0) != len(chunk):
            place = stream.tell() - len(chunk) + len(chunk) - len(chunk.lstrip(b"\0"))
            raise UsageError(
                f"{file} has an end mark, a block of zeros, before its end: more data begin at byte {place:,} (unpacked)."
                " Either a part was overwritten by zeros, copy it again; or several tars were joined, make one tar of them."
            )
        zeros += len(chunk)
    if zeros < BLOCKSIZE:
        raise UsageError(f"{file} is not a tar, or it is truncated (its end mark is incomplete); copy it again.")


class _Header(tarfile.TarInfo):
    """A header that must be valid: ``tarfile`` treats an invalid or missing header as the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile)
        except EOFHeaderError:
            raise
        except HeaderError as error:
            raise ReadError(str(error)) from error


def _key_and_suffix(name: str) -> tuple[str, str]:
    """Split a name: ``a/12.photo.png`` -> ``("a/12", "photo.png")``; a name without a dot -> ``("", "")``."""
    folder, file = posixpath.split(name)
    stem, _, suffix = file.partition(".")
    return (posixpath.join(folder, stem), suffix) if stem and suffix else ("", "")


def _column(suffix: str) -> str:
    stem, dot, last_suffix = suffix.rpartition(".")
    return unquote(stem) if dot else last_suffix.lower()


def _suffix(suffix: str) -> str:
    return suffix.rpartition(".")[2].lower()
