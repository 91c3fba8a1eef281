"""WebDataset tar shards: which columns they have, and what the files of a sample say of them.

A sample is the files whose names are equal up to the first dot. ``12.photo.png`` is its column ``photo``, ``12.png`` its
column ``png``; the keys of the mapping in ``12.json`` are columns too, of what no file holds. Where samples have two files
of one name (``12.left.png``, ``12.left.txt``), these columns keep their suffixes. Texts are ``.txt``, whole numbers
``.cls``; any other file is bytes. Pickled files are left out.

The cells of all columns have one Arrow type, ``CELL``, as a column may hold files here and JSON there.
"""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from tarfile import EOFHeaderError, HeaderError, ReadError  # type: ignore[attr-defined]
from typing import IO, Any, Self
from urllib.parse import unquote

from multimodal.core.errors import UsageError
from multimodal.data.tables.cells import encode_json_cell, unreadable_cell
from multimodal.data.tables.file_cells import MAX_FILE_BYTES as LARGEST_FILE

KEY, ADDRESS = "__key__", "__url__"
SAMPLED_MEMBERS = 2_000  # members; a column that none of them has is not seen
MAX_JSON_BYTES = 64 * 2**20  # bytes of a JSON file that is read
MAX_COLUMNS = 1_000
JSON_SUFFIXES = ("json", "jsn")
TEXT_SUFFIXES = ("txt", "text", "transcript", "caption")
INTEGER_SUFFIXES = ("cls", "cls2", "class", "count", "index", "inx", "id")
PICKLE_SUFFIXES = ("pth", "pt", "pyd", "pickle", "pkl")

Member = tuple[str, bytes | None]  # what follows the first dot of its name, and its content where it was read


@dataclass(frozen=True)
class TarColumns:
    """The columns of tar shards; ``described`` are those whose cells describe a row to people."""

    names: tuple[str, ...]
    described: tuple[str, ...]


def tar_columns(files: Sequence[str]) -> TarColumns:
    """The columns of tar shards, as far as their first members tell.

    Raises:
        UsageError: there are more than anybody can mean, or a file breaks off.
    """
    seen: dict[str, bool] = {}  # column -> whether people can read it
    twice: dict[str, list[str]] = {}  # column -> the suffixes of its files, where a sample has several
    suffixes: dict[str, dict[str, None]] = defaultdict(dict)
    for _, members in group_members(islice(_members(files), SAMPLED_MEMBERS)):
        mine: dict[str, list[str]] = defaultdict(list)
        for suffix, content in members:
            if suffix.lower() in JSON_SUFFIXES:
                for name, value in (_parse_json_columns(content) or {}).items():
                    seen[name] = seen.get(name, False) or isinstance(value, str | int | float)
            elif _suffix(suffix) not in PICKLE_SUFFIXES:
                column = _column(suffix)
                mine[column].append(suffix)
                suffixes[column][suffix] = None
                seen[column] = seen.get(column, False) or _suffix(suffix) in (*TEXT_SUFFIXES, *INTEGER_SUFFIXES)
        twice |= {column: files_of for column, files_of in mine.items() if len(set(files_of)) > 1}
    for column in twice:
        del seen[column]
        seen |= {suffix: _suffix(suffix) in (*TEXT_SUFFIXES, *INTEGER_SUFFIXES) for suffix in suffixes[column]}
    names = [name for name in seen if name not in (KEY, ADDRESS) and _utf8_safe(name) == name]
    if len(names) > MAX_COLUMNS:
        raise UsageError(
            f"{files[0]} has {len(names):,} columns, more than {MAX_COLUMNS:,}: its JSON files differ in keys."
        )
    return TarColumns((*names, KEY, ADDRESS), (*(name for name in names if seen[name]), KEY))


def group_members(members: Iterable[Member]) -> Iterator[tuple[str, list[Member]]]:
    """The key and the members of each sample, from the names and contents of files in the order of the tar."""
    split = (((found := _key_and_suffix(name))[0], found[1], content) for name, content in members)
    for key, sample in groupby((part for part in split if part[0]), key=lambda part: part[0]):
        yield key, [(suffix, content) for _, suffix, content in sample]


def cells_of(key: str, members: Sequence[Member], columns: Sequence[str]) -> dict[str, Any]:
    """Column -> its cell in one sample, a mapping as ``CELL`` has it, or None; of ``KEY`` the string."""
    known = set(columns)
    cells: dict[str, Any] = dict.fromkeys(columns)
    beside: dict[str, Any] = {}
    broken: dict[str, Any] | None = None
    for suffix, content in members:
        if suffix.lower() in JSON_SUFFIXES:
            found = _parse_json_columns(content)
            if found is None:
                broken = _json_cell(
                    unreadable_cell(
                        "not JSON", f"{key}.{suffix} is no JSON, or larger than {MAX_JSON_BYTES >> 20} MiB."
                    )
                )
            beside |= found or {}
            continue
        column = suffix if suffix in known else _column(suffix)
        if column in known and _suffix(suffix) not in PICKLE_SUFFIXES:
            again = unreadable_cell("two files of one column", f"the sample {key} has two files for {column!r}.")
            cells[column] = _cell(key, suffix, content) if cells[column] is None else _json_cell(again)
    for column in columns:
        if cells[column] is None and column not in (KEY, ADDRESS):
            value = None if (found := beside.get(column)) != found else found  # NaN is missing
            cells[column] = broken if value is None else _json_cell(encode_json_cell(value))
    cells[KEY] = _utf8_safe(found if isinstance(found := beside.get(KEY), str) else key)
    return cells


def _cell(key: str, suffix: str, content: bytes | None) -> dict[str, Any]:
    if content is None:
        return _json_cell(unreadable_cell("too large", f"{key}.{suffix} is larger than {LARGEST_FILE >> 20} MiB."))
    ending = _suffix(suffix)
    try:
        if ending in TEXT_SUFFIXES:
            return _json_cell(encode_json_cell(content.decode("utf-8")))
        if ending in INTEGER_SUFFIXES:
            return _json_cell(encode_json_cell(int(content)))
    except ValueError as error:
        reason = "not UTF-8" if ending in TEXT_SUFFIXES else "no number"
        return _json_cell(unreadable_cell(reason, f"{key}.{suffix} cannot be read ({error})."))
    return {"json": None, "bytes": content, "path": _utf8_safe(f"{posixpath.basename(key)}.{suffix}")}


def _utf8_safe(name: str) -> str:
    """A name as UTF-8 can write it; those of files may hold any bytes."""
    return name.encode("utf-8", "backslashreplace").decode()


def _json_cell(text: str) -> dict[str, Any]:
    return {"json": text, "bytes": None, "path": None}


def _parse_json_columns(content: bytes | None) -> dict[str, Any] | None:
    """What a JSON file says of the columns; a value that is no mapping is that of the column ``json``."""
    try:
        found = json.loads(content) if content is not None and len(content) <= MAX_JSON_BYTES else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else {"json": found} if found is not None else None


def _members(files: Sequence[str]) -> Iterator[Member]:
    """Names of members; the contents of the JSON files alone."""
    import fsspec

    for file in files:
        with fsspec.open(file) as stream:
            yield from read_members(
                file,
                stream,  # pyright: ignore
                lambda member: _suffix(member.name) in JSON_SUFFIXES and member.size <= MAX_JSON_BYTES,
            )


def is_wanted_member(member: tarfile.TarInfo) -> bool:
    """Whether a member is one of those that cells are made of."""
    return member.size <= LARGEST_FILE and _suffix(member.name) not in PICKLE_SUFFIXES


def read_members(
    file: str, stream: IO[bytes], wanted: Callable[[tarfile.TarInfo], bool] = is_wanted_member
) -> Iterator[Member]:
    """Name and content of each file of a tar, None for those that are not ``wanted``; ``file`` names the tar.

    Raises:
        UsageError: it is no tar, or breaks off.
    """
    try:
        with tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Header) as archive:
            for member in archive:
                if member.isfile() and not posixpath.basename(member.name).startswith((".", "__")):
                    content = archive.extractfile(member) if wanted(member) else None
                    yield member.name, content.read() if content else None
                archive.members = []  # type: ignore[attr-defined]  (it would remember all)
    except (tarfile.TarError, EOFError) as error:
        raise UsageError(f"{file} is no tar, or not all of it is there ({error}); copy it again.") from error


class _Header(tarfile.TarInfo):
    """A header. Where there is neither one nor the mark of the end, ``tarfile`` ends as if all had been read."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile)
        except EOFHeaderError:
            raise
        except HeaderError as error:
            raise ReadError(str(error)) from error


def _key_and_suffix(name: str) -> tuple[str, str]:
    """``("a/12", "photo.png")`` of ``a/12.photo.png``; of a file without a dot ``("", "")``."""
    folder, file = posixpath.split(name)
    stem, _, suffix = file.partition(".")
    return (posixpath.join(folder, stem), suffix) if stem and suffix else ("", "")


def _column(suffix: str) -> str:
    stem, dot, ending = suffix.rpartition(".")
    return unquote(stem) if dot else ending.lower()


def _suffix(suffix: str) -> str:
    return suffix.rpartition(".")[2].lower()
