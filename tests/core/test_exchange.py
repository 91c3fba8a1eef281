"""Folders that change places are both there at every moment."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from multimodal.core import exchange
from multimodal.core.exchange import exchange_folders


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "which").write_text(name)
    return tmp_path / "a", tmp_path / "b"


def test_a_reader_always_finds_one_of_the_two_folders(pair: tuple[Path, Path]) -> None:
    a, b = pair
    if exchange._system_call() is None:
        pytest.skip("the system has no such call")
    done, missing = threading.Event(), []

    def read() -> None:
        while not done.is_set():
            if not (a / "which").exists():
                missing.append(1)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(501):
        exchange_folders(a, b)
    done.set()
    reader.join()
    assert not missing
    assert ((a / "which").read_text(), (b / "which").read_text()) == ("b", "a")


def test_without_the_system_call_three_renames_do_it(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = pair
    monkeypatch.setattr(exchange, "_system_call", lambda: None)
    exchange_folders(a, b)
    assert ((a / "which").read_text(), (b / "which").read_text()) == ("b", "a")
    assert sorted(os.listdir(a.parent)) == ["a", "b"]


@pytest.mark.parametrize("system_call", [True, False])
def test_a_missing_folder_is_an_error_and_nothing_moves(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, system_call: bool
) -> None:
    a, b = pair
    if not system_call:
        monkeypatch.setattr(exchange, "_system_call", lambda: None)
    with pytest.raises(FileNotFoundError):
        exchange_folders(a, b.with_name("c"))
    assert sorted(os.listdir(a.parent)) == ["a", "b"]
    assert (a / "which").read_text() == "a"
