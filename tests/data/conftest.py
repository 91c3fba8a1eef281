from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tables are read anew; what the datasets library leaves open of files that it cannot read is closed."""
    monkeypatch.setenv("MULTIMODAL_CACHE", str(tmp_path / "cache"))
    yield
    gc.collect()  # here, where its warnings are ignored
