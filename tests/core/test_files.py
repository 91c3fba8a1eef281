"""A folder is there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from multimodal.core.errors import MultimodalError
from multimodal.core.files import atomic_folder, default_cache


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)
    (folder / "a").write_text("old a")
    (folder / "inner" / "b").write_text("old b")
    return folder


def test_a_new_folder_appears_with_its_parents_when_it_is_full(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "first" / "model"
    with atomic_folder(folder, "a") as new:
        (new / "a").write_text("1")
        assert not folder.exists()
    assert contents(folder) == {"a": "1"}
    assert os.listdir(folder.parent) == ["model"]


def test_an_old_folder_stays_until_the_new_one_is_full_and_is_then_replaced_whole(old: Path) -> None:
    before = contents(old)
    with atomic_folder(old, "a") as new:
        assert contents(new) == {}
        (new / "a").write_text("new a")
        assert contents(old) == before
    assert contents(old) == {"a": "new a"}
    assert os.listdir(old.parent) == ["model"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_folder_and_nothing_of_the_new(old: Path, error: type[BaseException]) -> None:
    before = contents(old)

    def fill(new: Path) -> None:
        (new / "a").write_text("half")
        raise error("stop")

    with pytest.raises(error, match="stop"), atomic_folder(old, "a") as new:
        fill(new)
    assert contents(old) == before
    assert os.listdir(old.parent) == ["model"]


def test_an_exception_where_no_folder_was_leaves_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop"), atomic_folder(tmp_path / "model", "a"):
        raise ValueError("stop")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("failing", [1, 2])
def test_a_move_that_fails_leaves_the_old_folder_and_no_other(
    old: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    before, moves, rename = contents(old), [], os.rename

    def sometimes(source: Any, target: Any) -> None:
        moves.append(source)
        if len(moves) == failing:
            raise OSError("the disk is gone")
        rename(source, target)

    monkeypatch.setattr(os, "rename", sometimes)
    with pytest.raises(OSError, match="the disk is gone"), atomic_folder(old, "a"):
        pass
    assert old.exists()
    assert contents(old) == before
    assert os.listdir(old.parent) == ["model"]


def test_a_file_in_the_folder_s_place_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    refuse(tmp_path / "notes.txt", r"/notes\.txt is a file; name a folder")
    assert contents(tmp_path) == {"notes.txt": "mine"}


@pytest.mark.parametrize("marker", ["no_such_file", "inner", ""])  # the last two name folders
def test_a_folder_of_other_things_is_refused_and_kept(old: Path, marker: str) -> None:
    before = contents(old)
    refuse(old, rf"/model is not empty and holds no {marker}; choose another folder", marker)
    assert contents(old) == before
    assert os.listdir(old.parent) == ["model"]


def refuse(folder: Path, said: str, marker: str = "a") -> None:
    filled = []
    with pytest.raises(MultimodalError, match=said), atomic_folder(folder, marker) as new:
        filled.append(new)
    assert filled == []  # refused before any work is done


def test_an_empty_folder_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    with atomic_folder(Path("model"), "a") as new:
        (new / "a").write_text("1")
    assert contents(tmp_path) == {"model/a": "1"}
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_the_folder_is_open_to_whom_the_umask_lets_in(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with atomic_folder(tmp_path / "model", "a"):
            pass
        (tmp_path / "plain").mkdir()
        assert os.umask(mask) == mask  # and the umask is as it was
    finally:
        os.umask(before)
    assert (tmp_path / "model").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIMODAL_CACHE", str(tmp_path / "here"))
    assert default_cache() == tmp_path / "here"
    monkeypatch.setenv("MULTIMODAL_CACHE", "")
    assert default_cache().name == "multimodal"
