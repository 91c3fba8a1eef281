"""Raw values of modalities from requests.

A modality whose processor reads files takes the file itself: as an upload, or as a ``data:`` URL in JSON. A text would be the
path of a file of the server, so it is refused, as addresses are.
"""

from __future__ import annotations

import base64
import binascii
import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np

from multimodal.core.encoder import Processor
from multimodal.core.errors import MultimodalError, Unreadable, shown
from multimodal.serve.errors import RequestError


def value_of_json(modality: str, value: Any, processor: Processor) -> Any:
    r"""Return the raw value that a JSON value stands for.

    Args:
        modality: its modality, for errors.
        value: the JSON value.
        processor: the modality's processor.

    Raises:
        RequestError: a file is expected, and the value is a path, an address, or not a file.

    Examples:
        >>> from multimodal import create
        >>> value_of_json("image", "data:image/png;base64,iVBORw==", create("image", "small_cnn").processor)
        b'\x89PNG'
    """
    if not processor.reads_files or isinstance(value, Mapping):
        return value
    if isinstance(value, str) and value[:5].lower() == "data:":
        return _of_data_url(modality, value)
    if is_numbers(value):
        try:
            return np.array(value, dtype=np.float32)
        except OverflowError as error:
            raise RequestError(422, f"{modality}: {error}.") from error
    raise RequestError(
        422,
        f"{modality}: send the file, by multipart/form-data or as a data: URL (data:image/png;base64,...), got"
        f" {shown(value)!r}. Paths and addresses are not opened.",
    )


def is_numbers(value: Any) -> bool:
    """Whether a JSON value is a list of numbers: the samples of a sound, or a vector.

    Examples:
        >>> is_numbers([0.5, 1]), is_numbers([]), is_numbers(["a"])
        (True, False, False)
    """
    return isinstance(value, list) and bool(value) and all(type(number) in (int, float) for number in value)


def _of_data_url(modality: str, url: str) -> bytes:
    described, comma, data = url[5:].partition(",")
    if not comma:
        raise RequestError(422, f"{modality}: the data: URL has no comma before its data.")
    if not described.lower().endswith(";base64"):
        return unquote_to_bytes(data)
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(422, f"{modality}: the data: URL is not base64 ({error}).") from error


def value_of_file(modality: str, name: str, content: bytes, processor: Processor) -> Any:
    """Return the raw value in an uploaded file.

    Args:
        modality: its modality, for errors.
        name: the file's name, whose ending says whether it is JSON, CSV or plain text.
        content: the bytes of the file.
        processor: the modality's processor. If it does not read files, the file holds the value: a text, JSON, or CSV with a
            header and one row.

    Raises:
        RequestError: the file does not hold a value.
    """
    if processor.reads_files:
        return content
    try:
        text = content.decode("utf-8-sig")
        if name.lower().endswith(".csv"):
            return _only_row(modality, text)
        return json.loads(text) if name.lower().endswith(".json") else text
    except (ValueError, RecursionError) as error:
        raise RequestError(422, f"{modality}: the file {shown(name)} cannot be read ({error}).") from error


def _only_row(modality: str, text: str) -> dict[str, str]:
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise RequestError(422, f"{modality}: the file is not CSV ({error}).") from error
    if len(rows) != 1 or None in rows[0]:
        raise RequestError(
            422, f"{modality}: give a CSV file with a header and one row; this one has {len(rows):,} rows."
        )
    return rows[0]


def read_items(processor: Processor, modality: str, values: Sequence[Any]) -> list[Any]:
    """Turn raw values into items.

    Args:
        processor: the modality's processor.
        modality: its name, for errors.
        values: the raw values.

    Raises:
        Unreadable: a value cannot be read; the message names its modality, and its position if there are several.
    """
    try:
        return processor.process(values)
    except Exception as error:  # looks at each value again, to say which one
        for position, value in enumerate(values):
            named = f"{modality} value {position}" if len(values) > 1 else modality
            try:
                processor(value)
            except Unreadable as fault:
                raise Unreadable(fault.reason, f"{named}: {fault}") from fault
            except MultimodalError:
                raise
            except Exception as fault:  # of a value that its processor did not foresee
                raise Unreadable("unreadable", f"{named}: {type(fault).__name__}: {fault}") from fault
        raise Unreadable("unreadable", f"{modality}: {type(error).__name__}: {error}") from error
