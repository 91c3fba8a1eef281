"""The process: it says its address, refuses a port in use, and answers what it has let in before it ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.client import HTTPConnection
from pathlib import Path

import pytest
from fastapi import FastAPI
from served_model import COLUMNS, table
from server_process import HalfSent, started

from multimodal.cli.main import main
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError
from multimodal.search.index import Index
from multimodal.serve.limits import Limits
from multimodal.serve.server import bind
from multimodal.serve.uvicorn_config import uvicorn_config


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, embedder: Embedder) -> tuple[Path, Path]:
    """The folders of the model and of the index."""
    folder = tmp_path_factory.mktemp("served")
    embedder.save_pretrained(folder / "model")
    Index.from_table(embedder, table(), columns=COLUMNS, key="sku").save(folder / "index")
    return folder / "model", folder / "index"


def search(address: str, body: object) -> int:
    asked = urllib.request.Request(f"{address}/search", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return len(json.load(answer)["hits"])


def test_requests_in_flight_are_answered_after_sigterm(folders: tuple[Path, Path]) -> None:
    with started(folders) as (process, address):
        assert search(address, {"text": "a red cup", "k": 2}) == 2
        sent = HalfSent(address)
        assert search(address, {"text": "a red cup"}) == 10  # the first half has arrived by now
        process.send_signal(signal.SIGTERM)
        threading.Event().wait(0.5)
        sent.assert_answered()
        assert process.wait(20) in (0, -signal.SIGTERM)


def test_a_connection_that_is_not_used_for_some_seconds_is_kept(folders: tuple[Path, Path]) -> None:
    with started(folders) as (_, address):
        connection = HTTPConnection(address.removeprefix("http://"), timeout=30)
        for wait in (6, 0):  # uvicorn's own limit is 5 s, at which a client's next request may be lost
            connection.request("GET", "/health")
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
            threading.Event().wait(wait)
        connection.close()


@pytest.mark.parametrize("sent", [b"GET /", b"GET /health HTTP/1.1\r\nX-Long: ", b"GET /health HTTP/1.1\r\n"])
def test_requests_with_endless_heads_are_ended(folders: tuple[Path, Path], sent: bytes) -> None:
    more = b"X-More: 1\r\n" * 100 if sent.endswith(b"\n") else b"a" * 1000
    with started(folders, quiet=False) as (_, address):
        host, _, port = address.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(sent)
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                connection.sendall(more * 10_000)  # 10 MB
        assert search(address, {"text": "a red cup"}) == 10


def test_the_parser_that_limits_heads_is_used_whatever_is_installed() -> None:
    assert uvicorn_config(FastAPI(), Limits()).http == "h11"


def test_the_page_is_opened_and_a_judgement_stored(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, judgements = tmp_path / "opened.txt", tmp_path / "judgements.jsonl"
    write = (
        "import sys, urllib.request as request\n"
        f"with open({str(opened)!r}, 'w') as file:\n    print(sys.argv[1], request.urlopen(sys.argv[1]).status, file=file)\n"
    )
    (tmp_path / "browser.py").write_text(write)
    monkeypatch.setenv("BROWSER", f"{sys.executable} {tmp_path / 'browser.py'} %s")
    with started(folders, "--open", "--feedback", str(judgements)) as (_, address):
        body = json.dumps({"verdict": "down", "key": "red/cup", "modality": "text"}).encode()
        asked = urllib.request.Request(f"{address}/feedback", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            assert answer.status == 204
        for _ in range(100):
            if opened.exists() and opened.read_text().endswith("\n"):
                break
            threading.Event().wait(0.1)
        assert opened.read_text() == f"{address} 200\n"
    assert json.loads(judgements.read_text())["verdict"] == "down"


def test_judgements_change_the_ranking_while_it_runs(folders: tuple[Path, Path], tmp_path: Path) -> None:
    def first(address: str, text: str) -> str:
        body = json.dumps({"text": text, "target": "image", "k": 5}).encode()
        asked = urllib.request.Request(f"{address}/search", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return json.load(answer)["hits"][0]["key"]

    with started(folders, "--feedback", str(tmp_path / "f"), "--learn") as (_, address):
        assert first(address, "a red cup") != "blue/jug"
        judgement = {"verdict": "missing", "key": "blue/jug", "modality": "image", "query": {"text": "a red cup"}}
        for number in range(30):
            body = json.dumps(judgement | {"query_id": f"{number}"}).encode()
            asked = urllib.request.Request(f"{address}/feedback", body, {"Content-Type": "application/json"})
            urllib.request.urlopen(asked, timeout=30).close()
        end = time.monotonic() + 20
        while first(address, "a red cup") != "blue/jug" and time.monotonic() < end:
            time.sleep(0.1)
        assert first(address, "a red cup") == "blue/jug"


def test_a_port_in_use_is_reported() -> None:
    with bind("127.0.0.1", 0) as taken, pytest.raises(MultimodalError, match=r"cannot listen on 127\.0\.0\.1, port"):
        bind("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(MultimodalError, match=r"cannot listen on 203\.0\.113\.1"):
        bind("203.0.113.1", 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max_waiting", "0"], "argument --max_waiting: '0' is not a whole number from 1"),
        (["--token_file", "missing"], "The token cannot be read from missing"),
        (["--prot", "1"], "--prot"),
        (["--workers", "0"], "argument --workers: '0' is not a number of processes from 1 to 64"),
        (["--learn"], "--learn learns from judgements: name their file by --feedback FILE"),
    ],
)
def test_wrong_options_are_reported(
    folders: tuple[Path, Path], options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *map(str, folders), *options]) != 0
    assert message in capsys.readouterr().err


def test_the_help_imports_neither_torch_nor_fastapi() -> None:
    code = (
        "import sys\nfrom multimodal.cli.main import main\nassert main(['serve', '--help']) == 0\n"
        "print({'torch', 'fastapi', 'uvicorn', 'numpy'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "set()\n")
