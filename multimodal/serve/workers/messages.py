"""Messages between a worker and the process that has the index: JSON, followed by vectors and tables as bytes.

Nothing in them is a pickled object, which could run code where it is read. A message is a whole one of
``multiprocessing.connection``, which counts its bytes; in it, the length of the JSON comes first (4 bytes).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from multimodal.core.conditions import Range, Where
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.search.engines.engine import Found, IndexReplaced

LENGTH = 4  # bytes of the length of the JSON
REPLACED, USAGE, SYSTEM, OTHER = "replaced", "usage", "system", "other"  # kinds of errors


class Message(NamedTuple):
    """A request or its answer.

    Attributes:
        content: what JSON can hold.
        parts: vectors and tables, see ``vectors_to_bytes`` and ``tables_to_bytes``.

    Examples:
        >>> sent = Message({"call": "nearest"}, [vectors_to_bytes(np.float32([[0.6, 0.8]]))])
        >>> received = Message.from_bytes(sent.to_bytes())
        >>> received.content, vectors_from_bytes(received.parts[0], dim=2)
        ({'call': 'nearest'}, array([[0.6, 0.8]], dtype=float32))
    """

    content: dict[str, Any]
    parts: Sequence[bytes | memoryview] = ()

    def to_bytes(self) -> bytes:
        """Return the bytes to send."""
        lengths = [len(part) for part in self.parts]
        head = json.dumps([self.content, lengths], separators=(",", ":")).encode()
        return b"".join([len(head).to_bytes(LENGTH, "little"), head, *self.parts])

    @classmethod
    def from_bytes(cls, received: bytes) -> Message:
        """Return the message that was sent.

        Args:
            received: what ``to_bytes`` returned.
        """
        whole = memoryview(received)
        start = LENGTH + int.from_bytes(whole[:LENGTH], "little")
        content, lengths = json.loads(bytes(whole[LENGTH:start]))
        parts = []
        for length in lengths:
            parts.append(whole[start : start + length])
            start += length
        return cls(content, parts)


def vectors_to_bytes(vectors: np.ndarray) -> bytes:
    """Return vectors ``(n, dim)`` as bytes of float32."""
    return np.ascontiguousarray(vectors, np.float32).tobytes()


def vectors_from_bytes(part: bytes | memoryview, dim: int) -> np.ndarray:
    """Return vectors ``(n, dim)`` float32.

    Args:
        part: what ``vectors_to_bytes`` returned.
        dim: their width.
    """
    return np.frombuffer(part, np.float32).reshape(-1, dim).copy()  # which can be written to


def table_to_bytes(table: pa.Table) -> bytes:
    """Return a table in Arrow's format for streams."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def table_from_bytes(part: bytes | memoryview) -> pa.Table:
    """Return a table.

    Args:
        part: what ``table_to_bytes`` returned.

    Examples:
        >>> table_from_bytes(table_to_bytes(pa.table({"key": ["cup-1"]})))["key"].to_pylist()
        ['cup-1']
    """
    with pa.ipc.open_stream(pa.py_buffer(part)) as reader:
        return reader.read_all()


def found_to_json(lists: Sequence[Sequence[Found]]) -> list[list[list[Any]]]:
    """Return what a search has found as lists for JSON, in which float keeps every digit."""
    return [
        [[*found[:3], float(found.score), found.metadata, list(found.words)] for found in found_of]
        for found_of in lists
    ]


def found_of_json(lists: Sequence[Sequence[Sequence[Any]]]) -> list[list[Found]]:
    """Return what a search has found.

    Args:
        lists: what ``found_to_json`` returned.

    Examples:
        >>> found_of_json(found_to_json([[Found("cup-1", "cups", "image", 0.5, "{}")]]))
        [[Found(key='cup-1', group='cups', modality='image', score=0.5, metadata='{}', words=())]]
    """
    return [[Found._make([*found[:5], tuple(found[5])]) for found in found_of] for found_of in lists]


def where_to_json(where: Where | None) -> dict[str, Any] | None:
    """Return conditions for JSON: lists of texts, and ranges as their kind and bounds."""
    if where is None:
        return None
    return {
        column: {"kind": wanted.kind, **wanted.bounds} if isinstance(wanted, Range) else list(wanted)
        for column, wanted in where.items()
    }


def where_of_json(where: Mapping[str, Any] | None) -> Where | None:
    """Return the conditions of which ``where_to_json`` made JSON.

    Args:
        where: what it returned.

    Examples:
        >>> where_of_json(where_to_json({"colour": ("red",), "price": Range.of("price", {"lt": 5})}))
        {'colour': ('red',), 'price': Range(kind='number', gt=None, gte=None, lt=5.0, lte=None)}
    """
    if where is None:
        return None
    return {
        column: Range(**wanted) if isinstance(wanted, Mapping) else tuple(wanted) for column, wanted in where.items()
    }


def error_to_json(error: MultimodalError) -> dict[str, str]:
    """Return what another process needs to raise an error again."""
    cause = error.__cause__
    if isinstance(error, IndexReplaced):
        kind = REPLACED
    elif isinstance(error, UsageError):
        kind = USAGE
    else:
        kind = OTHER if cause is None or isinstance(cause, MultimodalError) else SYSTEM
    return {"kind": kind, "message": str(error)}


class OtherProcessError(Exception):
    """What failed in the process that has the index; the cause of an error that is raised here."""


def raise_error(described: Mapping[str, str], folder: object) -> None:
    """Raise an error of the other process.

    Args:
        described: what ``error_to_json`` returned.
        folder: the folder of the index.

    Raises:
        IndexReplaced: the index is no longer the one in its folder.
        UsageError: something is asked for that there is not.
        MultimodalError: the index cannot be used; of the system's or the engine's errors, there is a cause.
    """
    kind, message = described["kind"], described["message"]
    if kind == REPLACED:
        raise IndexReplaced(folder)
    if kind == USAGE:
        raise UsageError(message)
    raise MultimodalError(message) from (OtherProcessError(message) if kind == SYSTEM else None)
