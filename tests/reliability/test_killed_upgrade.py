"""An upgrade that is killed at any moment leaves the old model and its index, or the new ones, and continues."""

from __future__ import annotations

import json
import os
import random
import shutil
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from command_processes import Command
from fastapi import FastAPI
from fastapi.testclient import TestClient
from upgraded_index import Upgradable, in_memory_row, keys_of, upgradable

from multimodal.core.embedder import Embedder
from multimodal.monitor.upgrade import rollback_index
from multimodal.search.index import Index
from multimodal.serve.app import create_app
from multimodal.serve.generations import Generation, SwitchingApp

ROWS = 1500


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Upgradable:
    return upgradable(tmp_path_factory.mktemp("made"), ROWS)


def fingerprint(folder: Path) -> str:
    return json.loads((folder / "embedder.json").read_text())["fingerprint"]


class Watcher(threading.Thread):
    """Asks a server the same query again and again, and notes which model answers."""

    def __init__(self, client: TestClient) -> None:
        super().__init__(daemon=True)
        self.client, self.done, self.answers, self.lost = client, threading.Event(), Counter[str](), 0

    def run(self) -> None:
        while not self.done.is_set():
            answer = self.client.post("/search", json={"text": "small red pot", "k": 3})
            if answer.status_code == 200 and len(answer.json()["hits"]) == 3:
                self.answers[str(self.client.get("/about").json()["dim"])] += 1
            else:
                self.lost += 1
            time.sleep(0.02)


@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_a_killed_upgrade_leaves_one_model_serving_and_continues(
    made: Upgradable, tmp_path: Path, capsys: pytest.CaptureFixture[str], kills: int
) -> None:
    folder = made.index(tmp_path / "index")
    models = {fingerprint(made.old): "old", fingerprint(made.new): "new"}
    command = ["upgrade", folder, made.new]

    def make(index: Index, name: str) -> FastAPI:
        return create_app(index, name=name)

    seconds, other = 0.0, tmp_path / "alone"
    for _ in range(2):  # the first one starts the server that forks commands, which takes longer
        for leftover in (other, tmp_path / "alone.former"):
            shutil.rmtree(leftover, ignore_errors=True)
        made.index(other)
        begin = time.perf_counter()
        assert Command(["upgrade", other, made.new], tmp_path / "log").wait() == 0
        seconds = time.perf_counter() - begin
    draw, found = random.Random(3), Counter[str]()
    app = SwitchingApp(folder, Generation.open(folder, [made.old], make), make, every=0.1)
    with TestClient(app) as client:
        watcher = Watcher(client)
        watcher.start()
        for kill in range(kills):
            killed = Command(command, tmp_path / "log")
            # at any moment, and often near the end, when the folders change places
            time.sleep(seconds * (draw.uniform(0.3, 1.0) if kill % 2 else draw.uniform(0, 1)))
            killed.kill()
            state = models[json.loads((folder / "index.json").read_text())["fingerprint"]]
            found[state] += 1
            if state == "new":  # it was too late to stop it; begin again
                assert Command(command, tmp_path / "log").wait() == 0
                rollback_index(folder)
        again = Command(command, tmp_path / "log")
        assert again.wait() == 0, again.printed
        end = time.monotonic() + 120
        while client.get("/about").json()["model"] != "new" and time.monotonic() < end:
            time.sleep(0.05)
        assert client.get("/about").json()["model"] == "new"
        watcher.done.set()
        watcher.join()
    assert watcher.lost == 0
    assert keys_of(folder) == keys_of(other)
    assert sorted(os.listdir(tmp_path)) == ["alone", "alone.former", "cache", "index", "index.former", "log"]
    with Index.open(folder, model=made.new) as index, Index.open(other, model=made.new) as alone:
        vectors = [dict(zip(i.items["key"].to_pylist(), i.vectors, strict=True)) for i in (index, alone)]
        assert all((vectors[0][key] == vector).all() for key, vector in vectors[1].items())
    with capsys.disabled():
        print(
            f"\nupgrade: {kills} kills, found {dict(found)}; {sum(watcher.answers.values())} answers meanwhile, by width"
            f" {dict(watcher.answers)}, none lost; the next one finished it"
        )


def test_a_row_that_is_added_between_two_kills_is_in_the_new_index(made: Upgradable, tmp_path: Path) -> None:
    folder = made.index(tmp_path / "index", engine="exact")
    killed = Command(["upgrade", folder, made.new], tmp_path / "log")
    end = time.monotonic() + 60
    while not (tmp_path / ".index.upgrade" / "upgrade.json").exists() and time.monotonic() < end:
        time.sleep(0.01)
    killed.kill()
    with Index.open(folder, model=made.old) as index:
        index.upsert([in_memory_row("mine", "red cup")], columns={"text": "name", "words": "words"}, key="id")
    again = Command(["upgrade", folder, made.new], tmp_path / "log")
    assert again.wait() == 0, again.printed
    with Index.open(folder, model=Embedder.from_pretrained(made.new)) as index:
        assert index.search(text="red cup", k=1, target="text")[0].key == "mine"
