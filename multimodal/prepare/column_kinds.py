"""Kinds of columns (text, image, number, ...), inferred from their first values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from multimodal.core.errors import MultimodalError
from multimodal.data.tables.cells import is_number
from multimodal.prepare.cleaning import clean_text, is_missing
from multimodal.prepare.columns import FILE_KINDS, Column, Kind

SAMPLED_ROWS = 1000  # rows from which the kinds are inferred

IMAGE_SUFFIXES = {"png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm", "ico"}
AUDIO_SUFFIXES = {"wav", "flac", "ogg", "mp3", "m4a", "aiff", "aif", "opus"}
GRAPH_SUFFIXES = {"svg", "graphml"}
DRAWING = re.compile(rb"(?:\xef\xbb\xbf)?\s{0,8}<(?:\?xml|!--|!DOCTYPE svg|svg)")
MAX_FILE_NAME_LENGTH = 4096  # characters; a longer text is not the name of a file
MAJORITY = 0.8  # a column has the kind of this fraction of its values


@dataclass
class TextCounts:
    """Counts of the texts of a column that are numbers.

    Attributes:
        count: texts so far.
        numbers: texts that are numbers.
        first_non_number: the first text that is not a number, with its row; None if all are.

    Examples:
        >>> counts = TextCounts()
        >>> counts.add("12", row=0)
        >>> counts.add("n/a", row=1)
        >>> counts
        TextCounts(count=2, numbers=1, first_non_number=('n/a', 1))
    """

    count: int = 0
    numbers: int = 0
    first_non_number: tuple[str, int] | None = None

    def add(self, text: str, row: int) -> None:
        """Count a text."""
        self.count += 1
        if is_number(text):
            self.numbers += 1
        elif self.first_non_number is None:
            self.first_non_number = (text, row)


def describe_columns(
    columns: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    modality_columns: Mapping[str, str | Sequence[str]],
    label_columns: Sequence[str | None],
    resolve: Callable[[str], Path | bytes],
) -> list[Column]:
    """Infer the kind and the modality of each column of a table.

    Args:
        columns: names of the columns.
        rows: the first rows.
        modality_columns: modality -> column or columns. Empty: every column of kind image, audio or text has the modality
            of that name, and one of drawings (SVG) or GraphML files the modality graph.
        label_columns: the key, group, split and balance columns (None: unset), which have a modality only if
            ``modality_columns`` names them.
        resolve: returns the file that a value names, as a path or its bytes.

    Returns:
        The columns in order.
    """
    modality_of = {c: m for m, cs in modality_columns.items() for c in ([cs] if isinstance(cs, str) else cs)}
    described: list[Column] = []
    for name in columns:
        values = [v for row in rows if not is_missing(v := row.get(name))]
        modality = modality_of.get(name)
        kind: Kind = modality if modality in ("text", "image", "audio") else kind_of(values, resolve)  # type: ignore[assignment]
        if modality is not None and modality not in ("text", "image", "audio") and kind not in FILE_KINDS:
            kind = "other"
        if not modality_columns and name not in label_columns and kind in ("text", "image", "audio"):
            modality = kind
        if not modality_columns and name not in label_columns and kind == "file" and _are_graphs(values):
            modality = "graph"
        if modality is None and kind in FILE_KINDS and name in label_columns:
            kind = "other"  # a key that looks like a path
        described.append(Column(name, kind, modality))
    return described


def truncate_value(value: Any) -> Any:
    """Truncate bytes and texts to the beginning, from which their kind can be inferred."""
    if isinstance(value, Mapping) and set(value) == {"path", "bytes"}:
        return {"path": value["path"], "bytes": truncate_value(value["bytes"])}
    if isinstance(value, bytes):
        return value[:64]
    return value[: 2 * MAX_FILE_NAME_LENGTH] if isinstance(value, str) else value


def kind_of(values: Sequence[Any], resolve: Callable[[str], Path | bytes]) -> Kind:
    """Infer the kind of a column.

    Args:
        values: some of its values, without missing ones.
        resolve: returns the file that a value names, as a path or its bytes.
    """
    if not values:
        return "other"
    files: list[Kind] = [kind for value in values if (kind := _file_kind(value)) is not None]
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
    """Detect the kind of a file from its first bytes: ``image``, ``audio``, or ``file`` for anything else."""
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
    if not isinstance(value, str):
        return None
    if DRAWING.match(value.encode(errors="replace")[:64]):  # the file itself
        return "file"
    if len(value) > MAX_FILE_NAME_LENGTH or "\n" in value:
        return None
    suffix = PurePosixPath(value.partition("?")[0]).suffix[1:].lower()
    if suffix in IMAGE_SUFFIXES:
        return "image"
    if suffix in AUDIO_SUFFIXES:
        return "audio"
    if suffix in GRAPH_SUFFIXES:
        return "file"
    return "file" if suffix.isalnum() and 1 < len(suffix) <= 5 and not suffix.isdigit() else None


def _are_graphs(values: Sequence[Any]) -> bool:
    """Return whether most files are graphs by their names, or are drawings by their first bytes."""
    return sum(map(_is_graph, values)) >= MAJORITY * len(values)


def _is_graph(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = value["path"] if value["bytes"] is None else value["bytes"]
    if isinstance(value, str) and PurePosixPath(value.partition("?")[0]).suffix[1:].lower() in GRAPH_SUFFIXES:
        return True
    content = value.encode(errors="replace")[:64] if isinstance(value, str) else value
    return isinstance(content, bytes) and DRAWING.match(content) is not None


def _files_exist(values: Sequence[Any], resolve: Callable[[str], Path | bytes]) -> bool:
    """Return whether files with these names exist, to distinguish names from texts such as "v1.beta"."""
    for value in values[:5]:
        if not isinstance(value, str):
            return True
        try:
            file = resolve(value)
        except MultimodalError:
            return False
        try:
            if isinstance(file, Path) and not file.is_file():
                return False
        except (OSError, ValueError):
            return False
    return True
