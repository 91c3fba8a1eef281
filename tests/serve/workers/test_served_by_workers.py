"""A server of two workers: they share the index, its limits and its metrics, and survive one another's end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from served_model import COLUMNS, TOKEN, table
from server_process import HalfSent, started

from multimodal.core.embedder import Embedder
from multimodal.monitor.query_log import read_queries
from multimodal.search.index import Index

pytestmark = pytest.mark.slow  # each process imports torch: 10 to 30 s until a server begins
SECONDS = 120.0  # until a worker is started again


@pytest.fixture
def folders(tmp_path: Path, embedder: Embedder) -> tuple[Path, Path]:
    """The folders of the model and of the index."""
    embedder.save_pretrained(tmp_path / "model")
    Index.from_table(embedder, table(), columns=COLUMNS, key="sku").save(tmp_path / "index")
    (tmp_path / "token").write_text(TOKEN)
    return tmp_path / "model", tmp_path / "index"


@contextmanager
def serving(folders: tuple[Path, Path], *options: str, quiet: bool = True) -> Iterator[tuple[Any, str, list[int]]]:
    """Run a server of two workers; yield its process, its address, and the processes of its workers."""
    token = str(folders[0].parent / "token")
    with started(folders, "--workers", "2", "--token_file", token, *options, quiet=quiet) as (process, address):
        yield process, address, workers_of(process.pid)


def workers_of(process: int) -> list[int]:
    """The processes that a server has started, but for that which watches over what they share."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def ask(address: str, path: str, body: object = None, method: str | None = None) -> Any:
    """The answer to a request over a connection of its own, which any worker may take."""
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(f"{address}{path}", data, headers, method=method)
    with urllib.request.urlopen(asked, timeout=60) as answer:
        content = answer.read()
    return json.loads(content or "null") if answer.headers["content-type"] == "application/json" else content.decode()


def found(address: str, text: str, **settings: Any) -> list[str]:
    body = {"text": text, "target": "text", "k": 3, **settings}
    return [hit["key"] for hit in ask(address, "/search", body)["hits"]]


@contextmanager
def only(worker: int, workers: list[int]) -> Iterator[None]:
    """Let one worker alone answer in the block."""
    for other in workers:
        if other != worker:
            os.kill(other, signal.SIGSTOP)
    try:
        yield
    finally:
        for other in workers:
            os.kill(other, signal.SIGCONT)


def sample(metrics: str, name: str) -> float:
    return float(next(line for line in metrics.splitlines() if line.startswith(name)).rpartition(" ")[2])


def test_workers_share_the_index_the_metrics_and_the_log(folders: tuple[Path, Path], tmp_path: Path) -> None:
    options = ["--log_queries", str(tmp_path / "log"), "--feedback", str(tmp_path / "feedback.jsonl"), "--learn"]
    with serving(folders, *options) as (process, address, workers):
        assert len(workers) == 2
        for number, writer in enumerate(2 * workers):
            (reader,) = {*workers} - {writer}
            with only(writer, workers):
                row = {"key": f"vase/{number}", "text": f"a vase {number}", "metadata": {f"new{number}": "yes"}}
                assert ask(address, "/items", {"items": [row]})["added"] == 1
            with only(reader, workers):
                assert found(address, f"a vase {number}", where={f"new{number}": "yes"}) == [f"vase/{number}"]
                assert ask(address, f"/items?key=vase/{number}", method="DELETE") == {"removed": 1}
            with only(writer, workers):
                assert f"vase/{number}" not in found(address, f"a vase {number}", k=100)
                judgement = {"verdict": "up", "key": "red/cup", "query": {"text": "cup"}, "query_id": f"{number}"}
                ask(address, "/feedback", judgement)
        for _ in range(46):
            found(address, "a red cup")
        with only(workers[0], workers):
            one = ask(address, "/metrics")
        with only(workers[1], workers):
            other = ask(address, "/metrics")
        for metrics in (one, other):
            assert sample(metrics, 'multimodal_requests_total{method="POST",route="/search",status="200"}') == 54
            assert sample(metrics, 'multimodal_request_seconds_count{route="/items"}') == 8
            assert sample(metrics, "multimodal_batch_size_sum") == 54
            assert sample(metrics, "multimodal_query_log_dropped_total") == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, -signal.SIGTERM)
        assert [worker for worker in workers if Path(f"/proc/{worker}").exists()] == []
    logged = [key for part in read_queries(tmp_path / "log") for key in part["keys"].to_pylist()]
    assert len(logged) == 54
    lines = (tmp_path / "feedback.jsonl").read_text().splitlines()
    assert [json.loads(line)["query_id"] for line in lines] == ["0", "1", "2", "3"]


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files, whose name is short enough for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def test_a_worker_that_is_killed_is_started_again_and_nothing_is_lost(
    folders: tuple[Path, Path], temporary: Path
) -> None:
    added, done, failures = list[str](), threading.Event(), list[str]()

    def write() -> None:
        number = 0
        while not done.is_set():
            number += 1
            key = f"killed/{number}"
            try:
                ask(address, "/items", {"items": [{"key": key, "text": "a vase", "metadata": {"number": number}}]})
                added.append(key)
            except OSError as error:  # its worker was killed, before or in the middle of its answer
                failures.append(str(error))

    with serving(folders, quiet=False) as (process, address, _):
        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        for kill in range(2):
            time.sleep(0.5)
            victim = workers_of(process.pid)[kill]
            os.kill(victim, signal.SIGKILL)
            end = time.monotonic() + SECONDS
            while victim in (now := workers_of(process.pid)) or len(now) < 2:
                assert time.monotonic() < end
                time.sleep(0.05)
            before = len(added)
            while len(added) < before + 3:  # the other worker answers meanwhile
                assert time.monotonic() < end
                time.sleep(0.05)
        done.set()
        writer.join()
        assert len(failures) <= 2  # what a killed one was working on
        for key in added:
            assert found(address, "a vase", where={"number": key.removeprefix("killed/")}) == [key]
        victims = workers_of(process.pid)
        process.kill()  # and the process that has the index
        process.wait(20)
        end = time.monotonic() + 20
        while any(Path(f"/proc/{worker}").exists() for worker in victims):
            assert time.monotonic() < end
            time.sleep(0.05)
        assert process.stderr.read().count("was ended by SIGKILL") == 2
    assert [*temporary.glob("multimodal-*")] == []
    with Index.open(folders[1]) as index:
        assert {*added} <= {*index.items["key"].to_pylist()}


def test_requests_in_flight_are_answered_after_sigterm_and_the_bound_is_of_both(folders: tuple[Path, Path]) -> None:
    with serving(folders, "--max_waiting", "3") as (process, address, workers):
        sent = list[HalfSent]()
        for worker in (*workers, workers[0]):
            with only(worker, workers):
                sent.append(HalfSent(address))
                assert ask(address, "/health") == {"status": "ok"}  # it was let in by now
        for worker in workers:
            with only(worker, workers), pytest.raises(urllib.error.HTTPError, match="429"):
                found(address, "a red cup")
            with only(worker, workers):
                assert sample(ask(address, "/metrics"), "multimodal_waiting") == 3
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        for one in sent:
            one.assert_answered()
        assert process.wait(60) in (0, -signal.SIGTERM)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_is_how_a_server_is_ended(folders: tuple[Path, Path], workers: str) -> None:
    with started(folders, "--workers", workers) as (process, address):  # it prints no error
        assert ask(address, "/health") == {"status": "ok"}
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def test_a_model_that_is_missing_is_reported_at_the_beginning(folders: tuple[Path, Path], tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    command = [sys.executable, "-m", "multimodal", "serve", missing, str(folders[1]), "--port", "0", "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"multimodal serve: {missing}")
    assert len(done.stderr.splitlines()) == 1
