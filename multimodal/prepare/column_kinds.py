"""What a column holds, as far as its first values tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from multimodal.core.errors import MultimodalError
from multimodal.data.tables.cells import is_number
from multimodal.prepare.cleaning import clean_text, is_missing
from multimodal.prepare.columns import FILE_KINDS, Column, Kind

SAMPLED_ROWS = 1000  # rows

IMAGE_ENDINGS = {"png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm", "ico"}
AUDIO_ENDINGS = {"wav", "flac", "ogg", "mp3", "m4a", "aiff", "aif", "opus"}
MAX_FILE_NAME_LENGTH = 4096  # a longer text names no file
MAJORITY = 0.8  # a column is what this part of its values are


@dataclass
class TextCounts:
    """How many texts of a column are numbers, and the first that is none, with its row."""

    count: int = 0
    numbers: int = 0
    other: tuple[str, int] | None = None

    def add(self, text: str, row: int) -> None:
        self.count += 1
        if is_number(text):
            self.numbers += 1
        elif self.other is None:
            self.other = (text, row)


def describe_columns(
    columns: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    chosen: Mapping[str, str | Sequence[str]],
    beside: Sequence[str | None],
    resolve: Callable[[str], Path | bytes],
) -> list[Column]:
    """The columns of a table, in their order.

    Args:
        columns: their names.
        rows: the first rows.
        chosen: modality -> column or columns; empty: every column of kind image, audio or text is its kind's modality.
        beside: the columns that are a key, a group, ...: no modality unless chosen.
        resolve: the file that a value names.
    """
    modality_of = {c: m for m, cs in chosen.items() for c in ([cs] if isinstance(cs, str) else cs)}
    described: list[Column] = []
    for name in columns:
        values = [v for row in rows if not is_missing(v := row.get(name))]
        modality = modality_of.get(name)
        kind: Kind = modality if modality in ("text", "image", "audio") else kind_of(values, resolve)  # type: ignore[assignment]
        if modality is not None and modality not in ("text", "image", "audio") and kind not in FILE_KINDS:
            kind = "other"
        if not chosen and name not in beside and kind in ("text", "image", "audio"):
            modality = kind
        if modality is None and kind in FILE_KINDS and name in beside:
            kind = "other"  # a key that looks like a path
        described.append(Column(name, kind, modality))
    return described


def truncate_value(value: Any) -> Any:
    """As much of a value as its kind can be told by: of bytes and texts the beginning."""
    if isinstance(value, Mapping) and set(value) == {"path", "bytes"}:
        return {"path": value["path"], "bytes": truncate_value(value["bytes"])}
    if isinstance(value, bytes):
        return value[:64]
    return value[: 2 * MAX_FILE_NAME_LENGTH] if isinstance(value, str) else value


def kind_of(values: Sequence[Any], resolve: Callable[[str], Path | bytes]) -> Kind:
    """The kind of a column from some of its values, none of them missing."""
    if not values:
        return "other"
    files: list[Kind] = [found for value in values if (found := _file_kind(value)) is not None]
    if len(files) >= MAJORITY * len(values):
        kinds: list[Kind] = ["image", "audio", "file"]
        kind = max(kinds, key=files.count)
        return kind if kind != "file" or _files_exist(values, resolve) else "other"
    if all(isinstance(value, bool) for value in values):
        return "category"
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) < MAJORITY * len(values):
        numbers = sum(isinstance(value, int | float) for value in values)
        return "number" if numbers >= MAJORITY * len(values) else "other"
    if all(map(is_number, texts)):
        return "number"
    if len(values) >= 20 and len(set(texts)) <= min(50, len(texts) // 5):
        return "category"
    with_digits = sum(any(c.isdigit() for c in text) for text in texts)
    if not any(" " in clean_text(text) for text in texts) and with_digits >= len(texts) / 2:
        return "other"  # names of rows, formulas, codes
    return "text"


def file_kind_of_bytes(data: bytes) -> Kind:
    """By the first bytes: ``image``, ``audio`` or (anything else) ``file``."""
    if data.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")) or data[8:12] == b"WEBP":
        return "image"
    if data.startswith((b"fLaC", b"OggS", b"ID3", b"FORM", b"\xff\xfb", b"\xff\xf3")) or data[8:12] == b"WAVE":
        return "audio"
    return "file"


def _file_kind(value: Any) -> Kind | None:
    if isinstance(value, Mapping) and set(value) == {"path", "bytes"}:
        value = value["bytes"] if value["bytes"] is not None else value["path"]
    if isinstance(value, bytes):
        return file_kind_of_bytes(value)
    if not isinstance(value, str) or len(value) > MAX_FILE_NAME_LENGTH or "\n" in value:
        return None
    ending = PurePosixPath(value.partition("?")[0]).suffix[1:].lower()
    if ending in IMAGE_ENDINGS:
        return "image"
    if ending in AUDIO_ENDINGS:
        return "audio"
    return "file" if ending.isalnum() and 1 < len(ending) <= 5 and not ending.isdigit() else None


def _files_exist(values: Sequence[Any], resolve: Callable[[str], Path | bytes]) -> bool:
    """Whether what looks like names of files is there, so that "v1.beta" is none."""
    for value in values[:5]:
        if not isinstance(value, str):
            return True
        try:
            found = resolve(value)
        except MultimodalError:
            return False
        try:
            if isinstance(found, Path) and not found.is_file():
                return False
        except (OSError, ValueError):
            return False
    return True
