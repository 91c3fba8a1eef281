"""A server in a process of its own."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def started(
    folders: tuple[Path, Path], *options: str, quiet: bool = True
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a server in a process; yield it and its address. It has to print no errors, unless ``quiet`` is off."""
    command = [sys.executable, "-m", "multimodal", "serve", *map(str, folders), "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if not (line := process.stdout.readline()).startswith("Serving 48 vectors"):
            process.kill()
        assert line.startswith("Serving 48 vectors"), line + process.stderr.read()
        try:
            yield process, line.split()[-1]
        finally:
            process.kill()
        assert not quiet or process.stderr.read() == ""


class HalfSent:
    """A search for three hits, of which the server has the head and the first ten bytes."""

    def __init__(self, address: str) -> None:
        host, port = address.removeprefix("http://").split(":")
        body = json.dumps({"text": "a red cup", "k": 3}).encode()
        head = "POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        self._connection, self._rest = socket.create_connection((host, int(port)), timeout=30), body[10:]
        self._connection.sendall(head.encode() + body[:10])

    def assert_answered(self) -> None:
        """Send the rest, and check that it is answered with three hits."""
        received = b""
        with self._connection as connection:
            connection.sendall(self._rest)
            while piece := connection.recv(65536):
                received += piece
        assert received.startswith(b"HTTP/1.1 200")
        assert len(json.loads(received.partition(b"\r\n\r\n")[2])["hits"]) == 3
