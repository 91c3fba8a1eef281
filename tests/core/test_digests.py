"""Digests find every change of a file or a document, and nothing else."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from multimodal.core import digests
from multimodal.core.digests import (
    DamagedFile,
    append_digest,
    check_checkpoint,
    check_document,
    check_file,
    check_recorded,
    describe_files,
    ends_with_digest,
    is_whole_copy,
    read_sums,
    record_sum,
    with_digest,
    write_copy_digests,
)

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "vectors.npy"
    path.write_bytes(CONTENT)
    return path


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize("block_bytes", [None, 1000, len(CONTENT), 1 << 20])
def test_a_change_anywhere_in_a_file_is_found(file: Path, block_bytes: int | None) -> None:
    entry = describe_files(file.parent, [file.name], block_bytes)[file.name]
    entry = json.loads(json.dumps(entry))
    check_file(file, entry)
    for at in range(0, len(CONTENT), 997):
        file.write_bytes(flipped(CONTENT, at))
        with pytest.raises(DamagedFile, match=r"vectors\.npy is damaged: its contents .* Build it again\."):
            check_file(file, entry, "Build it again.")
    for content in (b"", CONTENT[:-1], CONTENT + b"\0"):
        file.write_bytes(content)
        with pytest.raises(DamagedFile, match=f"it has {len(content):,} bytes instead of 10,240"):
            check_file(file, entry)
    file.unlink()
    with pytest.raises(DamagedFile, match=r"vectors\.npy is missing\. Build it again\."):
        check_file(file, entry, "Build it again.")


def test_the_digest_is_the_one_of_sha256sum(file: Path) -> None:
    entry = describe_files(file.parent, [file.name])[file.name]
    assert entry == {"bytes": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}
    record_sum(file.parent, file.name)
    line = f"{hashlib.sha256(CONTENT).hexdigest()}  vectors.npy\n"
    assert (file.parent / "multimodal.sha256").read_text() == line


@pytest.mark.parametrize("entry", [{}, [], "x", {"bytes": 10240}, {"bytes": 10240, "sha256": [], "block_bytes": 5}])
def test_a_malformed_entry_is_reported(file: Path, entry: Any) -> None:
    with pytest.raises(DamagedFile, match="its entry in the manifest is malformed"):
        check_file(file, entry)


def test_of_a_file_of_many_blocks_the_ends_and_random_ones_are_compared(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "BLOCKS_CHECKED", 4)
    entry = describe_files(file.parent, [file.name], block_bytes=1024)[file.name]
    for at in (0, len(CONTENT) - 1):
        file.write_bytes(flipped(CONTENT, at))
        with pytest.raises(DamagedFile):
            check_file(file, entry)
    file.write_bytes(flipped(CONTENT, 5000))  # in one of eight inner blocks, of which two are compared
    found = 0
    for _ in range(200):
        try:
            check_file(file, entry)
        except DamagedFile:
            found += 1
    assert 20 < found < 90
    with pytest.raises(DamagedFile):
        check_file(file, entry, whole=True)


def test_a_document_is_compared_as_it_is_read(tmp_path: Path) -> None:
    values: dict[Any, Any] = {"shares": (0.8, 0.1), 1: None, "name": "größer", "nan": float("nan")}
    document = with_digest(values)
    path = tmp_path / "prepare.json"
    path.write_text(json.dumps(document, indent=3, ensure_ascii=False))
    read = json.loads(path.read_text())
    check_document(read, path)
    for change in ({"shares": [0.8, 0.2]}, {"1": 0}, {"more": None}, {"digest": "0" * 64}):
        with pytest.raises(DamagedFile, match=r"prepare\.json is damaged"):
            check_document(read | change, path)
    del read["digest"]
    check_document(read, path)  # of an earlier version


def test_the_last_line_about_a_file_counts_and_no_line_is_repeated(file: Path) -> None:
    record_sum(file.parent, file.name)
    record_sum(file.parent, file.name, read_sums(file.parent))
    assert len((file.parent / "multimodal.sha256").read_text().splitlines()) == 1
    file.write_bytes(b"new")
    with pytest.raises(DamagedFile):
        check_recorded([file])
    record_sum(file.parent, file.name, read_sums(file.parent))
    check_recorded([file, file.parent / "none"])
    assert read_sums(file.parent) == {file.name: hashlib.sha256(b"new").hexdigest()}


@pytest.mark.parametrize("content", [b"", b"\xff\xfe garbage", b"[]", b'{"files": ["mine"]}'])
def test_files_of_users_with_our_names_are_left_alone(file: Path, content: bytes) -> None:
    (file.parent / "prepare.json").write_bytes(content)
    check_recorded([file])


def test_a_copy_is_whole_only_with_its_digests(file: Path) -> None:
    assert not is_whole_copy(file.parent)
    write_copy_digests(file.parent)
    assert is_whole_copy(file.parent)
    file.write_bytes(flipped(CONTENT, 77))
    assert not is_whole_copy(file.parent)
    assert is_whole_copy(file.parent, only="other")
    file.write_bytes(CONTENT)
    (file.parent / "digests.json").write_text("[]")
    assert not is_whole_copy(file.parent)


def test_an_appended_digest_belongs_to_the_contents_before(file: Path) -> None:
    assert not ends_with_digest(file)
    append_digest(file)
    assert ends_with_digest(file)
    content = file.read_bytes()
    assert content == CONTENT + hashlib.sha256(CONTENT).digest()
    for at in (0, 5000, len(content) - 1):
        file.write_bytes(flipped(content, at))
        assert not ends_with_digest(file)


def test_a_checkpoint_is_compared_with_its_checksums(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"weights": torch.arange(1000.0)}, path)
    check_checkpoint(path)
    content = path.read_bytes()
    at = content.index(torch.arange(100.0).numpy().tobytes()) + 200
    path.write_bytes(flipped(content, at))
    assert not torch.load(path, weights_only=True)["weights"].equal(torch.arange(1000.0))  # torch does not notice
    with pytest.raises(DamagedFile, match=r"last\.ckpt is damaged: its contents .* Start again\."):
        check_checkpoint(path, "Start again.")
    for damaged in (b"", content[:-1], content[: len(content) // 2], b"garbage"):
        path.write_bytes(damaged)
        with pytest.raises(DamagedFile, match=r"last\.ckpt is damaged: it cannot be read"):
            check_checkpoint(path)
    assert zipfile.ZipFile(tmp_path / "other.ckpt", "w").close() is None
    check_checkpoint(tmp_path / "other.ckpt")
