"""Digests of rows: equal digests mean that the encoders got the same."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
import torch

from multimodal.core.encoder import Processor

DIGEST_BYTES = 16


def row_digest(items: Mapping[str, Any], processors: Mapping[str, Processor]) -> bytes:
    """Return a digest of the items of a row, 16 bytes.

    Args:
        items: modality -> item that its processor returned.
        processors: modality -> processor; used for an item of an unknown type, whose inputs are digested instead.

    Examples:
        >>> first = row_digest({"text": [1, 2], "image": np.zeros(2)}, {})
        >>> first == row_digest({"image": np.zeros(2), "text": [1, 2]}, {}), first == row_digest({"text": [1, 2]}, {})
        (True, False)
    """
    found = blake2b(digest_size=DIGEST_BYTES)
    for modality, item in sorted(items.items()):
        parts: list[bytes] = [repr(modality).encode()]
        if not _add(item, parts):
            parts = [repr(modality).encode(), b"inputs"]
            _add(dict(processors[modality].collate([item])), parts)
        found.update(b"".join(parts))
    return found.digest()


def _add(item: Any, parts: list[bytes]) -> bool:
    """Append the contents of an item, so that unlike ones differ; return False if a type in it is unknown."""
    if isinstance(item, torch.Tensor):
        parts.append(f"{item.dtype}".encode())
        item = (item.float() if item.dtype == torch.bfloat16 else item).numpy()
    if isinstance(item, np.ndarray):
        parts.append(f"{item.dtype.str}{item.shape}".encode())
        parts.append(item.tobytes())
        return item.dtype != object
    if isinstance(item, list | tuple):
        parts.append(f"{len(item)}[".encode())
        return all(_add(each, parts) for each in item)
    if isinstance(item, dict):
        parts.append(f"{len(item)}{{".encode())
        return all(_add(name, parts) and _add(value, parts) for name, value in item.items())
    if item is None or isinstance(item, bool | int | float | str | bytes):
        parts.append(f"{item!r},".encode())
        return True
    return False
