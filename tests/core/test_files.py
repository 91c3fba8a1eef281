"""Folders are replaced atomically; the cache folder."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.files import (
    atomic_folder,
    check_folder,
    default_cache,
    interrupted_replacement,
    no_such_folder,
    not_a_file,
)
from multimodal.core.folder_lock import hold_lock, replacement_lock_file


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)
    (folder / "a").write_text("old a")
    (folder / "inner" / "b").write_text("old b")
    return folder


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("https://host/a//b", "https://host/a/b"),
        ("s3://a", "s3://a"),
        ("zip://a::https://host/b.zip", "zip://a::https://host/b.zip"),
        ("data:image/png;base64,abc", "data:image/png;base64,abc"),
        ("file:///a/b", "file:/a/b"),
    ],
)
def test_an_address_that_became_a_path_is_shown_as_an_address(path: str, written: str) -> None:
    for shown, given in ((written, Path(path)), (path, path)):
        assert str(not_a_file(given, "the picture")).startswith(f"{shown} is an address")
    assert str(no_such_folder(Path(path), "?")).startswith(f"{written} is an address")


def test_a_new_folder_appears_with_its_parents_when_it_is_complete(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "first" / "model"
    with atomic_folder(folder, "a") as new:
        (new / "a").write_text("1")
        assert not folder.exists()
    assert contents(folder) == {"a": "1"}
    assert os.listdir(folder.parent) == ["model"]


def test_an_old_folder_is_kept_until_the_new_one_is_complete_and_replaces_it(old: Path) -> None:
    before = contents(old)
    with atomic_folder(old, "a") as new:
        assert contents(new) == {}
        (new / "a").write_text("new a")
        assert contents(old) == before
    assert contents(old) == {"a": "new a"}
    assert os.listdir(old.parent) == ["model"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_keeps_the_old_folder_and_removes_the_new(old: Path, error: type[BaseException]) -> None:
    before = contents(old)

    def fill(new: Path) -> None:
        (new / "a").write_text("half")
        raise error("stop")

    with pytest.raises(error, match="stop"), atomic_folder(old, "a") as new:
        fill(new)
    assert contents(old) == before
    assert os.listdir(old.parent) == ["model"]


def test_an_exception_without_an_old_folder_leaves_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop"), atomic_folder(tmp_path / "model", "a"):
        raise ValueError("stop")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failed_rename_keeps_the_old_folder_and_no_other(
    old: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    before, moves, rename = contents(old), [], os.rename

    def fail_once(source: Any, target: Any) -> None:
        moves.append(source)
        if len(moves) == failing:
            raise OSError("the disk is gone")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail_once)
    with pytest.raises(OSError, match="the disk is gone"), atomic_folder(old, "a"):
        pass
    assert old.exists()
    assert contents(old) == before
    assert os.listdir(old.parent) == ["model"]


def leftover(folder: Path, kind: str, *files: str) -> Path:
    """A folder as a process that was killed while it replaced ``folder`` leaves it."""
    path = folder.with_name(f".{folder.name}.{kind}-k3_x9abc")
    for file in files:
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        (path / file).write_text("left")
    return path


def replace(folder: Path) -> None:
    with atomic_folder(folder, "a") as new:
        (new / "a").write_text("new a")


def test_what_killed_processes_left_is_removed_and_nothing_else(old: Path) -> None:
    leftover(old, "new", "half")
    leftover(old, "old", "model/a")  # killed after the second rename
    replacement_lock_file(old).write_text("of a killed process")
    others = [".model2.new-k3_x9abc", ".model.new-mine", ".model.new-k3_x9abc.txt", "model.new-k3_x9abc"]
    for name in others:
        (old.parent / name).mkdir()
    (old.parent / ".model.new-linklink").symlink_to(old.parent / others[0])
    replace(old)
    assert sorted(os.listdir(old.parent)) == sorted(["model", ".model.new-linklink", *others])
    assert contents(old) == {"a": "new a"}


def test_a_folder_that_was_lost_between_two_renames_is_moved_back_by_the_next_writer(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    lost = leftover(folder, "old", "model/a", "model/b")
    hint = f" A process was killed while it replaced it: move {lost / 'model'} to {folder}."
    assert interrupted_replacement(folder) == hint
    with pytest.raises(ValueError, match="stop"), atomic_folder(folder, "a"):
        raise ValueError(f"stop {contents(folder)}")
    assert contents(folder) == {"a": "left", "b": "left"}
    assert os.listdir(tmp_path) == ["model"]
    assert interrupted_replacement(folder) == ""
    replace(folder)
    assert contents(tmp_path) == {"model/a": "new a"}


def test_a_folder_that_another_process_replaces_is_refused_and_its_new_one_kept(old: Path) -> None:
    theirs, before = leftover(old, "new", "half"), contents(old)
    refused: list[str] = []

    def second() -> None:
        try:
            replace(old)
        except MultimodalError as error:
            refused.append(str(error))

    with hold_lock(replacement_lock_file(old), old):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert f"{old} is being written by" in refused[0]
    assert (theirs / "half").exists()
    assert contents(old) == before


def test_without_locks_leftovers_may_have_an_owner_and_are_kept(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_supported(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    theirs = leftover(old, "new", "half")
    monkeypatch.setattr(fcntl, "flock", not_supported)
    replace(old)
    assert (theirs / "half").exists()
    assert sorted(os.listdir(old.parent)) == [theirs.name, "model"]


def test_a_full_disk_names_the_folder_and_keeps_the_old_one(old: Path) -> None:
    before = contents(old)
    with pytest.raises(MultimodalError, match="/model cannot be written: the disk is full"), atomic_folder(old, "a"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert contents(old) == before
    assert os.listdir(old.parent) == ["model"]


def test_a_path_can_be_a_folder_unless_it_or_one_above_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for path in (tmp_path, tmp_path / "new" / "deep"):
        check_folder(str(path))
    for path in (tmp_path / "notes.txt", tmp_path / "notes.txt" / "new" / "deep"):
        with pytest.raises(UsageError, match=r"/notes\.txt is a file, not a folder"):
            check_folder(path)
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_a_file_at_the_folder_s_path_is_rejected_and_kept(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for path in (tmp_path / "notes.txt", tmp_path / "notes.txt" / "model"):
        assert_rejected(path, r"/notes\.txt is a file, not a folder; name another folder")
    assert contents(tmp_path) == {"notes.txt": "mine"}


@pytest.mark.parametrize("marker", ["no_such_file", "inner", ""])  # the last two name folders
def test_a_folder_without_the_marker_is_rejected_and_kept(old: Path, marker: str) -> None:
    before = contents(old)
    assert_rejected(old, rf"/model is not empty and holds no {marker}; choose another folder", marker)
    assert contents(old) == before
    assert os.listdir(old.parent) == ["model"]


def assert_rejected(folder: Path, message: str, marker: str = "a") -> None:
    filled = []
    with pytest.raises(MultimodalError, match=message), atomic_folder(folder, marker) as new:
        filled.append(new)
    assert filled == []  # rejected before any work is done


def test_an_empty_folder_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    with atomic_folder(Path("model"), "a") as new:
        (new / "a").write_text("1")
    assert contents(tmp_path) == {"model/a": "1"}
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_the_umask_determines_the_permissions_of_the_folder(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with atomic_folder(tmp_path / "model", "a"):
            pass
        (tmp_path / "plain").mkdir()
        assert os.umask(mask) == mask  # the umask is unchanged
    finally:
        os.umask(before)
    assert (tmp_path / "model").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_environment_sets_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIMODAL_CACHE", str(tmp_path / "here"))
    assert default_cache() == tmp_path / "here"
    monkeypatch.setenv("MULTIMODAL_CACHE", "")
    assert default_cache().name == "multimodal"
