"""A server under 16 clients, some of them hostile, loses no request and does not grow.

``MULTIMODAL_SOAK_SECONDS=3600`` makes it an hour; by default it takes some seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from http.client import HTTPConnection
from pathlib import Path

import pytest
from served_model import COLOURS, COLUMNS, data_url, picture, table

from multimodal.core.embedder import Embedder
from multimodal.search.index import Index

SECONDS = float(os.environ.get("MULTIMODAL_SOAK_SECONDS", "6"))
CLIENTS = 16
MAX_GROWTH = 150  # MiB, after the first third: of the allocator's caches for pictures of 3 million pixels

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc, to measure memory")


def png_of_zeros(width: int, height: int) -> bytes:
    """A black picture, whose file is a thousand times smaller than its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    pixels = zlib.compress(bytes((3 * width + 1) * height), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def requests() -> list[tuple[bytes, int]]:
    """Bodies for /search, and the status that each is answered by."""
    bodies: list[tuple[object, int]] = [
        ({"text": "a red cup"}, 200),
        ({"text": "a blue jug", "target": "image", "k": 3, "facets": ["colour"]}, 200),
        ({"image": data_url(picture(COLOURS["red"]))}, 200),
        ({"text": "a", "like": ["red/cup"], "where": {"colour": "blue"}}, 200),
        ({"image": data_url(png_of_zeros(2000, 1500))}, 200),
        ({"image": data_url(png_of_zeros(10, 10)[:40])}, 422),
        (
            {"image": data_url(picture(COLOURS["blue"]).replace(b"\0\0\0\x18\0\0\0\x18", b"\0\0\xc3\x50\0\0\xc3\x50"))},
            422,
        ),
        ({"image": "/etc/passwd"}, 422),
        ({"text": "a", "kk": 1}, 400),
        ([1, 2, 3], 400),
    ]
    return [(json.dumps(body).encode(), status) for body, status in bodies]


def memory(process: int) -> float:
    """The memory of a process, in MiB."""
    (line,) = (x for x in Path(f"/proc/{process}/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def test_no_request_is_lost_and_memory_is_bounded(tmp_path: Path, embedder: Embedder) -> None:
    embedder.save_pretrained(tmp_path / "model")
    Index.from_table(embedder, table(), columns=COLUMNS, key="sku").save(tmp_path / "index")
    command = [
        sys.executable,
        "-m",
        "multimodal",
        "serve",
        str(tmp_path / "model"),
        str(tmp_path / "index"),
        "--port",
        "0",
    ]
    bodies = requests()
    answers: Counter[tuple[int, int]] = Counter()  # (wanted status, status) -> requests
    lost: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().split()[-1].rpartition(":")[2])
        end = time.monotonic() + SECONDS

        def client(number: int) -> None:
            connection = HTTPConnection("127.0.0.1", port, timeout=60)
            while time.monotonic() < end:
                body, wanted = bodies[number % len(bodies)]
                number += 1
                try:
                    connection.request("POST", "/search", body, {"Content-Type": "application/json"})
                    answer = connection.getresponse()
                    answer.read()
                    answers[wanted, answer.status] += 1
                except OSError as error:
                    lost.append(repr(error))
            connection.close()

        clients = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
        for thread in clients:
            thread.start()
        measured = []
        while any(thread.is_alive() for thread in clients):
            measured.append(memory(process.pid))
            time.sleep(max(SECONDS / 60, 0.1))
        for thread in clients:
            thread.join()
        process.terminate()
    print(
        f"{answers.total():,} requests, {max(measured[: len(measured) // 3]):.0f}, then {max(measured):.0f} MiB at most"
    )
    assert lost == []
    assert {wanted for wanted, _ in answers} == {200, 400, 422}
    assert [pair for pair in answers if pair[0] != pair[1]] == []
    assert max(measured) - max(measured[: len(measured) // 3]) < MAX_GROWTH
