from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Read tables without a cache, and close files that the datasets library cannot read and leaves open."""
    monkeypatch.setenv("MULTIMODAL_CACHE", str(tmp_path / "cache"))
    yield
    gc.collect()  # here, where its warnings are ignored
