"""A server that runs while its index is upgraded and rolled back answers everything, and each time from one model."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from served_model import TOKEN
from upgraded_index import Upgradable, upgradable

from multimodal.cli.main import main
from multimodal.monitor.map_index import map_index
from multimodal.monitor.upgrade import rollback_index, upgrade_index
from multimodal.search.index import Index
from multimodal.search.index_folder import IndexFolder, open_index_folder
from multimodal.serve.app import create_app
from multimodal.serve.feedback import learn_from_feedback
from multimodal.serve.generations import Generation, SwitchingApp, find_model

QUERIES = ("red cup", "small old jug", "blue bowl tall")
SECONDS = 120.0  # until a server has noticed


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Upgradable:
    return upgradable(tmp_path_factory.mktemp("made"), 60)


def ask(address: str, path: str, body: object = None, method: str = "POST") -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    asked = urllib.request.Request(f"{address}{path}", data, headers, method=method)
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return json.load(answer)


def hits_of(answer: Any) -> tuple[tuple[str, float], ...]:
    return tuple((hit["key"], round(hit["score"], 3)) for hit in answer["hits"])


def expected(folder: Path, model: Path) -> dict[str, tuple[tuple[str, float], ...]]:
    with Index.open(folder, model=model) as index:
        return {q: tuple((h.key, round(h.score, 3)) for h in index.search(text=q, k=5, target="text")) for q in QUERIES}


class Client(threading.Thread):
    """Asks the same queries again and again, and counts which model's answers come."""

    def __init__(self, address: str, models: dict[str, dict[str, tuple[tuple[str, float], ...]]], number: int) -> None:
        super().__init__(daemon=True)
        self.address, self.models, self.number = address, models, number
        self.counts, self.done, self.failures = Counter[str](), threading.Event(), list[str]()

    def run(self) -> None:
        query = QUERIES[self.number % len(QUERIES)]
        while not self.done.is_set():
            try:
                found = hits_of(ask(self.address, "/search", {"text": query, "k": 5, "target": "text"}))
            except (OSError, ValueError) as error:
                self.failures.append(repr(error))
                continue
            of = [name for name, answers in self.models.items() if close(found, answers[query])]
            self.counts["+".join(of) or "neither"] += 1


def close(a: tuple[tuple[str, float], ...], b: tuple[tuple[str, float], ...]) -> bool:
    """Whether two answers have the same hits; those of equal scores may come in any order."""
    return sorted(key for key, _ in a) == sorted(key for key, _ in b) and all(
        abs(x - y) < 0.005 for (_, x), (_, y) in zip(a, b, strict=True)
    )


def wait_for_model(address: str, fingerprint: str) -> None:
    end = time.monotonic() + SECONDS
    while ask(address, "/about", method="GET")["fingerprint"] != fingerprint:
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_no_answer_is_lost_or_mixed_during_upgrade_and_rollback(
    made: Upgradable, tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: int
) -> None:
    for name in ("index", "other"):
        made.index(tmp_path / name)
    models = {"old": expected(tmp_path / "other", made.old)}
    upgrade_index(tmp_path / "other", made.new)
    models["new"] = expected(tmp_path / "other", made.new)
    assert all(not close(models["old"][query], models["new"][query]) for query in QUERIES)
    fingerprints = {}
    for name, folder in (("old", made.old), ("new", made.new)):
        fingerprints[name] = json.loads((folder / "embedder.json").read_text())["fingerprint"]
    (tmp_path / "token").write_text(TOKEN)
    command = [sys.executable, "-m", "multimodal", "serve", str(made.old), str(tmp_path / "index"), "--port", "0"]
    command += ["--token_file", str(tmp_path / "token"), "--workers", str(workers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        address = process.stdout.readline().split()[-1]

        def switched(name: str) -> None:
            assert process.stdout is not None
            assert f"{name} from now on" in process.stdout.readline()  # of several workers, one says so
            wait_for_model(address, fingerprints[name])

        clients = [Client(address, models, number) for number in range(3)]
        try:
            for client in clients:
                client.start()
            assert ask(address, "/items", {"items": [{"key": "far", "words": "new pot"}]})["added"] == 1
            upgrade_index(tmp_path / "index", made.new)
            switched("new")
            about = ask(address, "/about", method="GET")
            assert (about["model"], about["vectors"]) == ("new", 2 * 57 + 1)  # the added row is there
            assert ask(address, "/items", {"items": [{"key": "late", "words": "old pot"}]})["added"] == 1
            rollback_index(tmp_path / "index", made.old)
            switched("old")
            assert ask(address, "/about", method="GET")["vectors"] == 2 * 57 + 2
            rollback_index(tmp_path / "index")
            switched("new")
            time.sleep(0.3)
        finally:
            for client in clients:
                client.done.set()
            for client in clients:
                client.join()
            process.kill()
        assert process.stderr.read() == ""
    counts = sum((client.counts for client in clients), Counter[str]())
    assert [client.failures for client in clients] == [[], [], []]
    assert set(counts) == {"old", "new"}
    with capsys.disabled():
        print(f"\n{sum(counts.values())} answers during an upgrade and two rollbacks: {dict(counts)}, none lost")


def test_a_change_in_the_moment_of_the_switch_is_sent_again(made: Upgradable, tmp_path: Path) -> None:
    folder = made.index(tmp_path / "index")

    def make(index: Index, name: str) -> Any:
        return create_app(index, name=name, token=TOKEN)

    first = Generation.open(folder, [made.old], make)
    app = SwitchingApp(folder, first, make, every=3600)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with TestClient(app) as client:
        upgrade_index(folder, made.new)
        body = {"items": [{"key": "mine", "text": "red cup"}]}
        refused = client.post("/items", json=body, headers=headers)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
        assert client.post("/search", json={"text": "red cup"}).status_code == 200
        assert client.portal is not None
        client.portal.call(app._look)
        assert client.post("/items", json=body, headers=headers).json()["added"] == 1
        assert client.get("/about").json()["model"] == "new"
    with Index.open(folder, model=made.new) as index:
        assert "mine" in index.items["key"].to_pylist()


@pytest.mark.parametrize("learn", [False, True])
def test_what_is_served_is_not_scanned_for_garbage_until_it_is_replaced(
    made: Upgradable, tmp_path: Path, learn: bool
) -> None:
    folder = made.index(tmp_path / "index")
    feedback = tmp_path / "feedback.jsonl"

    def make(index: Index, name: str) -> Any:
        if learn:
            learn_from_feedback(index, feedback)
        return create_app(index, name=name, feedback=feedback)

    app = SwitchingApp(folder, Generation.open(folder, [made.old], make), make, every=3600)
    model = weakref.ref(app.current.index.embedder)
    assert any(found is model() for found in gc.get_objects())
    with TestClient(app) as client:
        assert not any(found is model() for found in gc.get_objects())
        assert client.post("/search", json={"text": "red cup"}).status_code == 200
        upgrade_index(folder, made.new)
        assert client.portal is not None
        client.portal.call(app._look)
        end = time.monotonic() + SECONDS
        while model() is not None and time.monotonic() < end:
            time.sleep(0.05)
        assert model() is None
        assert client.get("/about").json()["model"] == "new"
        new = app.current.index.embedder
        assert not any(found is new for found in gc.get_objects())


def test_a_server_that_is_started_again_finds_the_recorded_model(made: Upgradable, tmp_path: Path) -> None:
    folder = made.index(tmp_path / "index")
    upgrade_index(folder, made.new)
    assert find_model(folder, [made.old]) == made.new
    assert find_model(folder, [tmp_path / "removed"]) == made.new
    rollback_index(folder)
    assert find_model(folder, [made.new, made.old]) == made.old
    assert main(["serve", str(made.new), str(folder), "--port", "0"]) == 1


def test_an_index_whose_model_is_not_there_is_not_switched_to(
    made: Upgradable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made.index(tmp_path / "index")
    moved = tmp_path / "moved"
    subprocess.run(["cp", "-r", str(made.new), str(moved)], check=True)

    def make(index: Index, name: str) -> Any:
        return create_app(index, name=name)

    app = SwitchingApp(folder, Generation.open(folder, [made.old], make), make, every=0.05)
    with TestClient(app) as client:
        upgrade_index(folder, moved)
        moved.rename(tmp_path / "gone")
        end = time.monotonic() + SECONDS
        while "cannot be served" not in (err := capsys.readouterr().err) and time.monotonic() < end:
            time.sleep(0.05)
        assert "The former one is served" in err
        assert client.get("/about").json()["model"] == "old"
        assert client.post("/search", json={"text": "red cup"}).status_code == 200


def test_mapped_queries_of_the_new_model_search_the_old_index_until_the_upgrade(
    made: Upgradable, tmp_path: Path
) -> None:
    (tmp_path / "made").mkdir()
    larger = upgradable(tmp_path / "made", 250)
    folder = larger.index(tmp_path / "index")

    def make(index: Index, name: str) -> Any:
        return create_app(index, name=name, token=TOKEN)

    def answer(client: TestClient) -> list[str]:
        found = client.post("/search", json={"text": "small red pot 7", "target": "words", "k": 3}).json()
        return [hit["key"] for hit in found["hits"]]

    app = SwitchingApp(folder, Generation.open(folder, [larger.old], make), make, every=3600)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    item = {"items": [{"key": "mine", "text": "red cup"}]}
    with TestClient(app) as client:
        assert client.portal is not None
        before = answer(client)
        report = map_index(folder, larger.new, old=larger.old, use=True)
        assert report.accepted, report
        client.portal.call(app._look)
        about = client.get("/about").json()
        assert (about["model"], about["dim"]) == ("new", 16)  # the width of the old model
        assert set(answer(client)) & set(before)
        refused = client.post("/items", json=item, headers=headers)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "60")
        upgrade_index(folder, larger.new)
        client.portal.call(app._look)
        about = client.get("/about").json()
        assert (about["model"], about["dim"]) == ("new", 24)
        assert client.post("/items", json=item, headers=headers).status_code == 200
        rollback_index(folder, larger.old)
        client.portal.call(app._look)
        assert client.get("/about").json()["model"] == "old"  # not the map again


def test_an_index_that_is_replaced_while_it_is_opened_is_opened_again(
    made: Upgradable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made.index(tmp_path / "index")

    def make(index: Index, name: str) -> Any:
        return create_app(index, name=name)

    def open_too_late(opened: Path) -> IndexFolder:
        if not rolled_back:
            rolled_back.append(True)
            rollback_index(folder, made.old)
        return open_index_folder(opened)

    rolled_back: list[bool] = []
    first = Generation.open(folder, [made.old], make)
    app = SwitchingApp(folder, first, make, every=0.05, open_folder=open_too_late)
    with TestClient(app) as client:
        upgrade_index(folder, made.new)
        end = time.monotonic() + SECONDS
        while not rolled_back and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.5)
        assert client.get("/about").json()["model"] == "old"
        upgrade_index(folder, made.new)
        while client.get("/about").json()["model"] != "new" and time.monotonic() < end:
            time.sleep(0.05)
        assert client.get("/about").json()["model"] == "new"
    assert "cannot be served" not in capsys.readouterr().err
