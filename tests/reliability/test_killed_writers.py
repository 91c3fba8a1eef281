"""A command that is killed at any moment leaves the old folder or the new one, and the next one removes what it left."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from command_processes import Command
from written_folders import COLUMNS, Material

from multimodal.core.errors import MultimodalError
from multimodal.search.embedding_folder import read_parts
from multimodal.search.index import Index

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("MULTIMODAL_TEST_KILLS", "12"))
Arguments = Callable[[Material, int, Path], list[object]]


def columns() -> list[str]:
    return [f"--columns.{modality}={column}" for modality, column in COLUMNS.items()]


REPLACED: dict[str, Arguments] = {  # the arguments that write the one or the other content
    "index": lambda material, which, out: ["index", material.embeddings[which], "--out", out],
    "prepare": lambda material, which, out: ["prepare", material.tables[which], "--out", out, *columns()],
    "export": lambda material, which, out: [
        *("export", material.model, "--to", "torch-export", "--out", out),
        *("--modality", list(COLUMNS)[which]),
    ],
}


def rows_of_index(folder: Path) -> int:
    index = Index.open(folder)
    assert np.isfinite(index.vectors).all()
    return len(index)


def rows_of_prepared(folder: Path) -> int:
    document = json.loads((folder / "prepare.json").read_text())
    rows = sum(pq.read_table(path).num_rows for path in folder.glob("*.parquet"))
    assert rows == sum(document["splits"].values())
    return rows


def file_of_export(folder: Path) -> str:
    (entry,) = json.loads((folder / "export.json").read_text())["modalities"].values()
    assert (folder / entry["file"]).stat().st_size > 0
    return entry["file"]


CONTENT: dict[str, Callable[[Path], object]] = {
    "index": rows_of_index,
    "prepare": rows_of_prepared,
    "export": file_of_export,
}


def leftovers(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.startswith("."))


@pytest.mark.parametrize("command", REPLACED)
def test_a_killed_replacement_leaves_the_old_folder_or_the_new(
    command: str, material: Material, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents, seconds = [], 0.0
    for which in range(2):
        begin = time.perf_counter()
        assert Command(REPLACED[command](material, which, tmp_path / f"alone-{which}"), tmp_path / "log").wait() == 0
        seconds = time.perf_counter() - begin
        contents.append(CONTENT[command](tmp_path / f"alone-{which}"))
    assert contents[0] != contents[1]
    draw, found, left = random.Random(7), Counter[str](), 0
    for trial in range(KILLS):
        folder, which = tmp_path / f"trial-{trial}", trial // 2 % 2
        folder.mkdir()
        out = folder / "out"
        if trial % 2:
            assert Command(REPLACED[command](material, 1 - which, out), tmp_path / "log").wait() == 0
        killed = Command(REPLACED[command](material, which, out), tmp_path / "log")
        time.sleep(draw.uniform(0, seconds))
        killed.kill()
        left += bool(leftovers(folder))
        if out.exists():
            content = CONTENT[command](out)
            assert content == contents[which] or (trial % 2 and content == contents[1 - which])
            found["new" if content == contents[which] else "old"] += 1
        else:
            found["lost between two renames" if trial % 2 else "none yet"] += 1
            if trial % 2 and command == "index":
                with pytest.raises(MultimodalError, match=r"move .*/out to "):
                    Index.open(out)
        again = Command(REPLACED[command](material, which, out), tmp_path / "log")
        assert again.wait() == 0, again.printed
        assert CONTENT[command](out) == contents[which]
        assert os.listdir(folder) == ["out"]
    with capsys.disabled():
        print(f"\n{command}: {KILLS} kills, found {dict(found)}; {left} left hidden files, none after the next run")


def contents_of_parts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("part-*")}


def wait_for(folder: Path, pattern: str) -> None:
    """Wait until a file is there, or for a minute."""
    end = time.monotonic() + 60
    while time.monotonic() < end and not any(folder.glob(pattern)):
        time.sleep(0.002)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_embed_continues_to_the_same_embeddings(
    material: Material, tmp_path: Path, capsys: pytest.CaptureFixture[str], processes: int
) -> None:
    def command(out: Path) -> Command:
        several = ["--processes", processes]
        return Command(
            ["embed", material.model, material.tables[0], "--out", out, *several, *columns()], tmp_path / "log"
        )

    begin = time.perf_counter()
    assert command(tmp_path / "alone").wait() == 0
    seconds = time.perf_counter() - begin
    files, draw, left = sorted(os.listdir(tmp_path / "alone")), random.Random(7), 0
    expected = contents_of_parts(tmp_path / "alone")
    assert len(expected) == (1 if processes == 1 else 6)
    finished = Counter[int]()
    for trial in range(KILLS):
        out = tmp_path / f"out-{trial}"
        killed = command(out)
        if trial % 2:  # while parts are written, which is soon done
            wait_for(out, "part-*")
            time.sleep(draw.uniform(0, 0.3))
        else:
            time.sleep(draw.uniform(0, seconds))
        killed.kill()
        left += out.exists() and any(name.startswith(".") or name.endswith(".new") for name in os.listdir(out))
        finished[len(contents_of_parts(out))] += 1
        again = command(out)
        assert again.wait() == 0, again.printed
        assert sorted(os.listdir(out)) == files
        assert contents_of_parts(out) == expected
        rows = [row for part in read_parts(out) for row in part["key"].to_pylist()]
        assert rows == [str(row) for row in range(3000)]
    with capsys.disabled():
        print(
            f"\nembed in {processes} process(es): {KILLS} kills, parts finished by then {dict(finished)}, {left} left hidden"
            " or unfinished files, none after the next run"
        )


def test_a_killed_update_leaves_one_state_and_continues(
    material: Material, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.csv"
    versions = [path.read_text() for path in material.tables]
    versions[1] = versions[1].replace("red", "pink")

    def command(out: Path, version: int) -> Command:
        table.write_text(versions[version])
        return Command(["embed", material.model, table, "--out", out, *columns()], tmp_path / "log")

    seconds, states = 0.0, []
    for version in (0, 1):
        begin = time.perf_counter()
        assert command(tmp_path / "alone", version).wait() == 0
        seconds = time.perf_counter() - begin
        states.append(rows_of_embeddings(tmp_path / "alone"))
    files, draw, found = sorted(os.listdir(tmp_path / "alone")), random.Random(7), Counter[str]()
    for trial in range(KILLS):
        out = tmp_path / f"out-{trial}"
        assert command(out, 0).wait() == 0
        killed = command(out, 1)
        if trial % 2:
            wait_for(out, ".next/part-*")
            time.sleep(draw.uniform(0, 0.05))
        else:
            time.sleep(draw.uniform(0, seconds))
        killed.kill()
        try:
            state = rows_of_embeddings(out)
        except MultimodalError as error:
            assert "An update was stopped" in str(error)  # noqa: PT017
            found["neither"] += 1
        else:
            assert state in states
            found["old" if state == states[0] else "new"] += 1
        again = command(out, 1)
        assert again.wait() == 0, again.printed
        assert rows_of_embeddings(out) == states[1]
        assert sorted(os.listdir(out)) == files
    with capsys.disabled():
        print(f"\nembed of a changed table: {KILLS} kills, found {dict(found)}")


def rows_of_embeddings(folder: Path) -> list[tuple[str, str]]:
    return [(row["key"], row["metadata"]) for part in read_parts(folder) for row in part.to_pylist()]
