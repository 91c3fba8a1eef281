"""A server that is killed under writes loses no change that it has acknowledged."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

import pytest
from served_model import COLUMNS, TOKEN, table

from multimodal.core.embedder import Embedder
from multimodal.search.index import Index

WRITERS = 2
SECONDS = (0.5, 2.5)  # from the first acknowledged change to the kill


class Writer(threading.Thread):
    """Adds rows one after the other, and removes some of them, until the server is gone; notes what was acknowledged."""

    def __init__(self, address: str, name: str) -> None:
        super().__init__()
        self.address, self.prefix = address, name
        self.present: set[str] = set()
        self.removed: set[str] = set()
        self.first = threading.Event()

    def run(self) -> None:
        for number in range(10_000):
            key = f"{self.prefix}/{number}"
            try:
                self._ask("POST", "/items", {"items": [{"key": key, "text": f"a vase {key}"}]})
                self.present.add(key)
                self.first.set()
                if number % 2 == 1:
                    gone = f"{self.prefix}/{number - 1}"
                    self.present.discard(gone)  # asked for: it may be gone even if the answer is lost
                    self._ask("DELETE", f"/items?key={gone}")
                    self.removed.add(gone)
            except (OSError, HTTPException, ValueError):  # the server is gone, before or in the middle of its answer
                return

    def _ask(self, method: str, path: str, body: object = None) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(f"{self.address}{path}", data, headers, method=method)
        with urllib.request.urlopen(asked, timeout=30) as answer:
            json.load(answer)


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_every_acknowledged_change_is_there_after_a_kill(tmp_path: Path, embedder: Embedder, kills: int) -> None:
    embedder.save_pretrained(tmp_path / "model")
    Index.from_table(embedder, table(), columns=COLUMNS, key="sku").save(tmp_path / "index")
    (tmp_path / "token").write_text(TOKEN)
    command = [sys.executable, "-m", "multimodal", "serve", str(tmp_path / "model"), str(tmp_path / "index")]
    command += ["--port", "0", "--token_file", str(tmp_path / "token")]
    present, removed = {row["sku"] for row in table()}, set()
    rng = random.Random(0)
    for kill in range(kills):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            address = process.stdout.readline().split()[-1]
            writers = [Writer(address, f"{kill}.{number}") for number in range(WRITERS)]
            for writer in writers:
                writer.start()
            assert all(writer.first.wait(30) for writer in writers)
            time.sleep(rng.uniform(*SECONDS))
            process.kill()
            for writer in writers:
                writer.join()
        for writer in writers:
            present |= writer.present
            removed |= writer.removed
        with Index.open(tmp_path / "index", model=embedder) as index:
            there = set(index.items["key"].to_pylist())
            assert present - there == set()
            assert removed & there == set()
            newest = sorted(writers[0].present)[-1]
            assert index.search(text=f"a vase {newest}", k=1, target="text")[0].score == pytest.approx(1, abs=1e-4)
    assert len(present) > 12 + kills * WRITERS
    assert removed
