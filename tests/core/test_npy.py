"""Damaged headers of ``.npy`` files are one kind of error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from multimodal.core.npy import map_npy


def test_any_damage_of_the_header_is_a_value_error_or_another_array(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    np.save(path, np.eye(3, dtype=np.float32))
    content, random, refused = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(400):
        changed = bytearray(content)
        start = int(random.integers(100))
        changed[start : start + 8] = random.bytes(8)
        path.write_bytes(changed)
        try:
            assert isinstance(map_npy(path), np.memmap)
        except ValueError:
            refused += 1
    assert refused > 300


def test_an_archive_and_an_empty_file_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "v.npy").open("wb") as file:
        np.savez(file, a=np.eye(2))
    with pytest.raises(ValueError, match="archive"):
        map_npy(tmp_path / "v.npy")
    (tmp_path / "v.npy").write_bytes(b"")
    with pytest.raises(ValueError, match="damaged"):
        map_npy(tmp_path / "v.npy")
