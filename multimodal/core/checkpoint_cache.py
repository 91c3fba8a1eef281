"""Cache of checkpoints shared by several encoders.

The towers of one checkpoint are encoders of several modalities, built one after another. What was read for the first is
kept for the next, and released when the embedder that they are for is built.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")

_cache: dict[Hashable, Any] = {}


def load_once(key: Hashable, load: Callable[[], T]) -> T:
    """Return what ``load`` returned at the first call with this key; it is kept until an embedder is built."""
    if key not in _cache:
        _cache[key] = load()
    return _cache[key]


def clear() -> None:
    """Release everything that was kept."""
    _cache.clear()
