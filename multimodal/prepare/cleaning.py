"""Cleaning of raw values: texts are normalised, files are read."""

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
from multimodal.data.tables.cells import FILE_FIELDS, check_bytes
from multimodal.data.tables.file_cells import MAX_FILE_BYTES
from multimodal.prepare.source import Row

if TYPE_CHECKING:
    from multimodal.prepare.columns import Column

# white space among the control characters (tab, line ends, separators) is handled by `split` in `clean_text`
CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufeff]")
INVISIBLE_CATEGORIES = (
    "Cf",
    "Zs",
)  # joiners, direction marks and similar, which only affect adjacent characters; spaces


def clean_text(text: str) -> str:
    """Return the text in Unicode's form NFC, without control characters, with single spaces and none at the ends.

    Every run of white space becomes one space. A text without any visible character becomes empty. Cleaning is idempotent.
    """
    clean = unicodedata.normalize("NFC", " ".join(CONTROL_CHARACTERS.sub("", text).split()))
    return clean if any(unicodedata.category(c) not in INVISIBLE_CATEGORIES for c in clean) else ""


def is_missing(value: Any) -> bool:
    """Return whether a value is None, NaN, a blank text or a file with neither bytes nor path."""
    if isinstance(value, Mapping) and value.keys() == FILE_FIELDS:
        return all(part is None for part in value.values())
    return (
        value is None or (isinstance(value, float) and value != value) or (isinstance(value, str) and not value.strip())
    )


@dataclass(frozen=True)
class File:
    """Contents and name of a file.

    Args:
        data: the bytes of the file.
        name: its name in the table; "" if it has none.

    Examples:
        >>> File(b"...", "cups/RED.PNG").suffix
        'png'
    """

    data: bytes
    name: str

    @property
    def suffix(self) -> str:
        """Suffix of the name in lower case, without its dot; "" if there is none."""
        suffix = PurePosixPath(self.name.partition("?")[0]).suffix[1:].lower()
        return suffix if suffix.isascii() and suffix.isalnum() and len(suffix) <= 8 else ""


@dataclass(frozen=True)
class Cleaner:
    """Cleaner of the rows of a table.

    Texts, categories, and text labels (keys, groups, splits) are cleaned by ``clean_text``; files are read; other values are
    unchanged. Missing values have no entry in the result.

    Args:
        columns: the columns of the table.
        key: the column that names a row; None: rows are named by number.
        labels: names of the key, group, split and balance columns.
        resolve: returns the file that a value names, as a path or its bytes.

    Examples:
        >>> from multimodal.prepare.columns import Column
        >>> clean = Cleaner([Column("title", "text", "text")], key=None, labels=frozenset(), resolve=Path)
        >>> clean(Row(0, {"title": " a  red cup"}))
        {'title': 'a red cup'}
        >>> clean(Row(1, {"title": [1, 2]})).reason
        'not a text'
    """

    columns: Sequence[Column]
    key: str | None
    labels: frozenset[str]
    resolve: Callable[[str], Path | bytes]

    def __call__(self, row: Row) -> dict[str, Any] | Reject:
        """Return the clean value of each column that has one, or the reject of the row."""
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
            return self.reject(row, "", "", "empty row", "the row has no value of any modality.")
        return clean

    def key_of(self, row: Row) -> str:
        """Return the key of the row, or its number if it has none."""
        key = None if self.key is None else row.values.get(self.key)
        return str(row.number) if is_missing(key) else shown(key)

    def reject(self, row: Row, column: str, value: Any, reason: str, message: str) -> Reject:
        """Return the reject of a row.

        Args:
            row: the row.
            column: the column at fault; "" if it is not a single one.
            value: the value at fault; "" if there is none.
            reason: short reason, by which rejects are counted.
            message: error message for this row.
        """
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
            raise Unreadable("not of its column", f"a file is in {column.name!r}, whose other values are not files.")
        return value


def as_text(value: Any) -> str:
    """Return the text of a value of a text column: text, UTF-8 bytes or a number.

    Raises:
        Unreadable: the value is of another type, too large, or its encoding is broken.
    """
    if isinstance(value, bytes):
        check_bytes(len(value), is_text=True)
        try:
            value = value.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise Unreadable("broken encoding", f"{shown(value)} that are not UTF-8 ({error.reason}).") from error
    if isinstance(value, bool | int | float):
        value = to_text(value)
    if not isinstance(value, str):
        raise Unreadable("not a text", f"a {type(value).__name__} is not a text.")
    _check_unicode(value)
    return value


def to_text(value: Any) -> str:
    """Return any value as text: JSON unless it is a text; equal values have equal texts.

    Raises:
        Unreadable: the text contains a lone surrogate.
    """
    if isinstance(value, str):
        text = value
    else:
        try:
            text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
        except (TypeError, ValueError, RecursionError):
            text = str(value) if not isinstance(value, int) else hex(value)  # too many digits for Python's decimal form
    _check_unicode(text)
    return text


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unreadable("broken encoding", "the text contains half of a character (a lone surrogate).") from error


def read_file(value: Any, resolve: Callable[[str], Path | bytes]) -> File:
    """Read the file that a cell contains or names.

    Args:
        value: bytes, a path, or a mapping ``{"path": ..., "bytes": ...}``.
        resolve: returns the file that a path names, as a local path or its bytes.

    Raises:
        Unreadable: the file does not exist, is empty, too large, or cannot be read.
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
        raise Unreadable("not a file", f"a {type(value).__name__} is not a file; give a path or bytes.")
    if not value:
        raise Unreadable("empty file", "the file is empty.")
    return File(value, clean_text(name))


def _read_named_file(value: str, resolve: Callable[[str], Path | bytes]) -> bytes:
    try:
        file = resolve(value)
        if isinstance(file, bytes):
            return file
        if file.stat().st_size > MAX_FILE_BYTES:
            raise Unreadable("file too large", f"{value} has more than {MAX_FILE_BYTES >> 20} MiB.")
        return file.read_bytes()
    except FileNotFoundError as error:
        raise Unreadable("missing file", f"{value} does not exist.") from error
    except (OSError, ValueError) as error:  # a folder, no right to read, a zero byte in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise Unreadable("unreadable file", f"{value} cannot be read ({reason}).") from error
