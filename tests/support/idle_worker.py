"""A process that does what its name says, for tests of what starts and stops processes; it imports nothing slow."""

from __future__ import annotations

import json
import multiprocessing
import signal
import sys
import time
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

CONTEXT = multiprocessing.get_context("spawn")


def idle(kind: str, ready: Connection) -> None:
    """Say that it is ready, and wait; or not, see ``kind``."""
    if kind == "broken":
        ready.send_bytes(json.dumps({"error": "There is no model."}).encode())
        sys.exit(1)
    if kind == "dies":
        sys.exit(3)
    if kind == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ready.send_bytes(json.dumps({"model": "runs/a"}).encode())
    time.sleep(60)


def start_idle(kind: str) -> tuple[SpawnProcess, Connection]:
    """Start such a process."""
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=idle, args=(kind, theirs))
    process.start()
    theirs.close()
    return process, ours
