"""From raw values to clean ones: texts in one form, files as their bytes."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from multimodal.core.errors import Unreadable, shown
from multimodal.core.rejects import Reject
from multimodal.data.tables.cells import FILE_FIELDS
from multimodal.prepare.source import Row

if TYPE_CHECKING:
    from multimodal.prepare.columns import Column

# white space among the control characters (tab, line ends, separators) is left to the split below
CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufeff]")
INVISIBLE_CATEGORIES = ("Cf", "Zs")  # joiners, marks of direction and the like change what is beside them; and spaces
MAX_FILE_BYTES = 1 << 30  # bytes; Parquet cells and memory are no place for more


def clean_text(text: str) -> str:
    """The text in Unicode's form NFC, without control characters, each run of white space one space, none at the ends.

    Cleaning a clean text changes nothing. A text in which nothing can be seen is empty.
    """
    clean = unicodedata.normalize("NFC", " ".join(CONTROL_CHARACTERS.sub("", text).split()))
    return clean if any(unicodedata.category(c) not in INVISIBLE_CATEGORIES for c in clean) else ""


def is_missing(value: Any) -> bool:
    """None, NaN, a text of nothing and a file without bytes and path are no value."""
    if isinstance(value, Mapping) and value.keys() == FILE_FIELDS:
        return all(part is None for part in value.values())
    return (
        value is None or (isinstance(value, float) and value != value) or (isinstance(value, str) and not value.strip())
    )


@dataclass(frozen=True)
class File:
    """The bytes of a file, and the name that the table gives it ("" where it gives none)."""

    data: bytes
    name: str

    @property
    def ending(self) -> str:
        """The name's ending in small letters, without its dot; "" where it has none."""
        ending = PurePosixPath(self.name.partition("?")[0]).suffix[1:].lower()
        return ending if ending.isascii() and ending.isalnum() and len(ending) <= 8 else ""


@dataclass(frozen=True)
class Cleaner:
    """Cleans the rows of a table whose columns are known.

    Texts, categories, and what names, groups and splits rows get ``clean_text``; files are read; every other value
    stays as it is. A missing value stays missing (its column has no entry).
    """

    columns: Sequence[Column]
    key: str | None
    labels: frozenset[str]  # the key, group, split and balance columns
    resolve: Callable[[str], Path | bytes]

    def __call__(self, row: Row) -> dict[str, Any] | Reject:
        """Column -> clean value, or what is wrong with the row."""
        clean: dict[str, Any] = {}
        for column in self.columns:
            value = row.values.get(column.name)
            try:
                cleaned = None if is_missing(value) else self._clean(column, value)
            except Unreadable as error:
                return Reject.of(row.number, self.key_of(row), column.name, value, error)
            if cleaned is not None:
                clean[column.name] = cleaned
        if not any(column.modality and column.name in clean for column in self.columns):
            return self.refuse(row, "", "", "empty row", "the row has a value of no modality.")
        return clean

    def key_of(self, row: Row) -> str:
        """What people call the row: its key, or its number where it has none."""
        key = None if self.key is None else row.values.get(self.key)
        return str(row.number) if is_missing(key) else shown(key)

    def refuse(self, row: Row, column: str, value: Any, reason: str, message: str) -> Reject:
        """The reject of a row for a reason that lies in several values or in none."""
        return Reject(row.number, self.key_of(row), column, shown(value), reason, message)

    def _clean(self, column: Column, value: Any) -> Any:
        if column.is_file:
            return read_file(value, self.resolve)
        if column.kind == "text":
            return clean_text(as_text(value)) or None
        if isinstance(value, str):
            _check_unicode(value)
            if column.kind == "category" or column.name in self.labels:
                return clean_text(value) or None
        if isinstance(value, Mapping) and value.keys() == FILE_FIELDS:
            raise Unreadable("not of its column", f"a file stands in {column.name!r}, whose other values are none.")
        return value


def as_text(value: Any) -> str:
    """A text from what a text column may hold: text, UTF-8 bytes, a number.

    Raises:
        Unreadable: it is no text, or broken.
    """
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Unreadable("broken encoding", f"{shown(value)} that are no UTF-8 ({error.reason}).") from error
    if isinstance(value, bool | int | float):
        value = to_text(value)
    if not isinstance(value, str):
        raise Unreadable("not a text", f"a {type(value).__name__} is no text.")
    _check_unicode(value)
    return value


def to_text(value: Any) -> str:
    """Any value as one text: JSON where it is more than a word, equal for equal values."""
    if isinstance(value, str):
        text = value
    else:
        try:
            text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
        except (TypeError, ValueError, RecursionError):
            text = str(value) if not isinstance(value, int) else hex(value)  # more digits than Python writes
    _check_unicode(text)
    return text


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unreadable("broken encoding", "the text holds half of a character (a lone surrogate).") from error


def read_file(value: Any, resolve: Callable[[str], Path | bytes]) -> File:
    """The file that a cell holds or names.

    Raises:
        Unreadable: there is none, it is empty, or it cannot be read.
    """
    name = ""
    if isinstance(value, Mapping):
        path, data = value.get("path"), value.get("bytes")
        name, value = path if isinstance(path, str) else "", path if data is None else data
    elif isinstance(value, str):
        name = value
    if isinstance(value, str):
        _check_unicode(value)
        value = _read_named_file(value, resolve)
    if not isinstance(value, bytes):
        raise Unreadable("not a file", f"a {type(value).__name__} is no file; give a path or bytes.")
    if not value:
        raise Unreadable("empty file", "the file is empty.")
    return File(value, clean_text(name))


def _read_named_file(value: str, resolve: Callable[[str], Path | bytes]) -> bytes:
    try:
        found = resolve(value)
        if isinstance(found, bytes):
            return found
        if found.stat().st_size > MAX_FILE_BYTES:
            raise Unreadable("file too large", f"{value} has more than {MAX_FILE_BYTES >> 30} GiB.")
        return found.read_bytes()
    except FileNotFoundError as error:
        raise Unreadable("missing file", f"{value} does not exist.") from error
    except (OSError, ValueError) as error:  # a folder, no right to read, a zero byte in the name
        said = getattr(error, "strerror", None) or str(error)
        raise Unreadable("unreadable file", f"{value} cannot be read ({said}).") from error
