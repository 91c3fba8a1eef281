"""A full disk is one line that names the folder, nothing is left, and the same command works when there is space."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_processes import Command
from written_folders import Material, arguments_of

pytestmark = pytest.mark.slow

KIB = {"embed": 64, "index": 64, "prepare": 16, "export": 32, "fit": 64}  # less than each of them writes


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def resize(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


@pytest.mark.parametrize("command", KIB)
def test_a_full_disk_is_reported_and_the_command_works_later(
    command: str, material: Material, small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = small_disk / "out"
    resize(small_disk, f"{KIB[command]}k")
    full = Command(arguments_of(command, material, out), tmp_path / "log")
    assert full.wait() == 1, full.printed
    assert full.last_line.startswith(f"multimodal {command}: {out}"), full.printed
    reported = full.last_line
    assert "cannot be written: the disk is full; free some space" in reported
    hidden = [path for path in small_disk.rglob("*") if path.name.startswith(".")]
    assert hidden == []
    if command in ("index", "prepare", "export"):
        assert os.listdir(small_disk) == []
    resize(small_disk, "100m")
    again = arguments_of(command, material, out)
    later = Command([*again, "--ckpt_path", "last"] if command == "fit" else again, tmp_path / "log")
    assert later.wait() == 0, later.printed
    with capsys.disabled():
        print(f"\n{reported}")


def test_a_full_cache_is_reported_as_the_cache(material: Material, small_disk: Path, tmp_path: Path) -> None:
    resize(small_disk, "32k")
    arguments = arguments_of("embed", material, tmp_path / "out")
    full = Command(arguments, tmp_path / "log", cache=small_disk / "cache")
    assert full.wait() == 1, full.printed
    assert full.last_line.startswith(
        f"multimodal embed: The cache folder {small_disk / 'cache'} cannot be written: the"
    )
    assert not (tmp_path / "out").exists()
