"""JSON files of others are read within bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from multimodal.core.json_file import read_json


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 200_000 + b"]" * 200_000, "nested too deeply"),
        (b"[" + b"1," * 1000 + b"1]", "is larger than 0 MiB"),
        (b'{"a": ', "Expecting value"),
        (b'"\xff"', "can't decode"),
    ],
)
def test_what_is_not_read(content: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_json(file, 1000 if content[1:2] == b"1" else 2**20)


def test_a_file_of_the_largest_size_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('["é"]', encoding="utf-8")
    assert read_json(file, file.stat().st_size) == ["é"]
