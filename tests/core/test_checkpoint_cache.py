"""The cache of checkpoints: read once, released when an embedder is built."""

from __future__ import annotations

from collections.abc import Callable

from multimodal.core.checkpoint_cache import load_once
from multimodal.core.embedder import Embedder


def test_it_is_read_once_for_one_embedder_and_then_released(make_embedder: Callable[..., Embedder]) -> None:
    read: list[str] = []

    def load() -> dict[str, str]:
        read.append("x")
        return {"image": "tower", "text": "tower"}

    first = load_once(("library", "checkpoint"), load)
    first.pop("image")
    assert load_once(("library", "checkpoint"), load) is first
    assert load_once(("library", "another"), load) is not first
    assert len(read) == 2
    make_embedder("text")
    assert load_once(("library", "checkpoint"), load) is not first
    assert len(read) == 3
