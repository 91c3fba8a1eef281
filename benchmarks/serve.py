"""Searches a second of ``multimodal serve``, and of a plain FastAPI handler with the same model and index.

The model has the encoders of configs/glyphs.yaml, without training, which takes the same time; or it is that of ``--run``. The
index holds pictures, outlines and names of the glyphs' unseen characters. Two servers take turns, each in a process of its own
on loopback:

- plain: a FastAPI handler that encodes one text and searches, ``index.search(text=text, target="image", k=10)``;
- serve: ``multimodal serve``.

A third process asks for texts with 1, 16 and 64 connections at a time, each of which sends its next query when it has its
answer. Printed are the answers a second, the median and the 99th percentile of the time of an answer (of the round in the
middle), the processor's time that the server spent on an answer, that of its first process alone, the requests that got no
answer or an error, and the ratio of the rates in each round.

With ``--workers 2``, a third server takes its turn: ``multimodal serve --workers 2``, whose ratios are those to one process.

    python benchmarks/serve.py [--run RUN] [--seconds 5] [--rounds 3] [--clients 1 16 64] [--workers 2] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from device import add_options, record
from fastapi import FastAPI
from pydantic import BaseModel

from multimodal.core.embedder import Embedder
from multimodal.experiment.load import load_config
from multimodal.search.index import Index
from multimodal.serve.server import bind

CONFIG = Path(__file__).parents[1] / "configs" / "glyphs.yaml"
SPLIT = "unseen_characters"
TARGET, K = "image", 10
COMPARED_WITH = {"serve": "plain", "workers": "serve"}
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
WARM = 1.0  # seconds before the clock runs


def make(run: Path | None, folder: Path) -> tuple[Path, Path, list[str]]:
    """Write the model, if none is given, and the index; return their folders, and texts to search for."""
    experiment = load_config(CONFIG)
    samples = experiment.data.samples
    if run is None:
        untrained = experiment.model.embedder
        untrained.fit_processors({"text": (samples[int(row)].values["text"] for row in samples.rows("train")[::10])})
        run = folder / "model"
        untrained.save_pretrained(run)
    index = Index.from_table(Embedder.from_pretrained(run), samples, split=SPLIT)
    index.save(folder / "index")
    names = [str(samples[int(row)].values["text"]) for row in samples.rows(SPLIT)]
    return run, folder / "index", list(dict.fromkeys(names))


class Query(BaseModel):
    """A request to the plain handler."""

    text: str
    target: str
    k: int


def serve_plainly(run: str, index: str) -> None:
    """The plain handler."""
    opened = Index.open(index, model=run)
    app = FastAPI()

    @app.post("/search")
    def search(query: Query) -> dict[str, Any]:
        return {"hits": [hit.to_json() for hit in opened.search(text=query.text, target=query.target, k=query.k)]}

    with bind("127.0.0.1", 0) as listening:
        print(f"Serving at http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listening])


@contextmanager
def running(command: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Run a server in the block; yield its port and its process."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            while "http://127.0.0.1:" not in (line := process.stdout.readline()):
                if not line:
                    raise SystemExit(f"{command} has ended.")
            yield int(line.strip().rpartition(":")[2]), process.pid
        finally:
            process.terminate()


def request(text: str) -> bytes:
    """A query as it is sent."""
    body = json.dumps({"text": text, "target": TARGET, "k": K}).encode()
    return (
        b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (len(body), body)
    )


class Client(asyncio.Protocol):
    """Asks one query after the other over one connection; does little for each answer, as it shares the CPU with the server.

    Args:
        requests: asked in turns.
        end: when to stop.
        taken: to which it appends when each answer came, and how long it took.
        answers: to which it appends each answer, of which ``failed`` says whether it is right.
        done: set when the last answer came, or the connection is lost.
    """

    def __init__(
        self,
        requests: Sequence[bytes],
        end: float,
        taken: list[tuple[float, float]],
        answers: list[bytes],
        done: asyncio.Future[None],
    ) -> None:
        self._requests, self._end, self._taken, self._answers, self._done = requests, end, taken, answers, done
        self._received, self._wanted, self._asked = b"", 0, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._received, self._wanted = b"", 0
        request = self._requests[self._asked % len(self._requests)]
        self._asked += 1
        self._start = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._wanted and (head := self._received.find(b"\r\n\r\n")) >= 0:
            length = LENGTH.search(self._received, 0, head + 2)
            assert length is not None
            self._wanted = head + 4 + int(length[1])
        if not self._wanted or len(self._received) < self._wanted:
            return
        now = time.perf_counter()
        self._taken.append((now, now - self._start))
        self._answers.append(self._received)
        if now < self._end:
            self._ask()
        else:
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._answers.append(b"")
            self._finish()

    def _finish(self) -> None:
        self._done.set_result(None)
        self._transport.close()


def failed(answer: bytes) -> bool:
    """Whether an answer is missing, an error or not complete."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return not head.startswith(b"HTTP/1.1 200") or len(json.loads(body)["hits"]) != K


def processor_seconds(process: int) -> float:
    """The time that the processor has spent on a process."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def processes_of(process: int) -> list[int]:
    """A server's first process, and those that it has started."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [process, *map(int, children)]


async def load(port: int, texts: Sequence[str], clients: int, seconds: float) -> dict[str, float]:
    """Ask with a number of connections at a time."""
    loop = asyncio.get_running_loop()
    start = time.perf_counter() + WARM
    end = start + seconds
    taken: list[tuple[float, float]] = []
    answers: list[bytes] = []
    requests = [request(text) for text in texts]
    finished: list[asyncio.Future[None]] = []
    for number in range(clients):
        order = [requests[i] for i in np.random.default_rng(number).permutation(len(requests))]
        finished.append(done := loop.create_future())
        await loop.create_connection(partial(Client, order, end, taken, answers, done), "127.0.0.1", port)
    await asyncio.gather(*finished)
    counted = [time_of for ended, time_of in taken if start <= ended < end]
    low, high = np.percentile(counted, [50, 99])
    return {
        "per_second": len(counted) / seconds,
        "p50_ms": 1000 * low,
        "p99_ms": 1000 * high,
        "failed": sum(map(failed, answers)),
        "answers": len(taken),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run of configs/glyphs.yaml, instead of an untrained model")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--workers", type=int, help="also measure a server of this many workers")
    parser.add_argument("--plain", nargs=2, metavar=("RUN", "INDEX"), help=argparse.SUPPRESS)
    add_options(parser)
    options = parser.parse_args()
    if options.plain:
        serve_plainly(*options.plain)
        return
    with tempfile.TemporaryDirectory() as folder:
        run, index, texts = make(options.run, Path(folder))
        commands = {
            "plain": [sys.executable, __file__, "--plain", str(run), str(index)],
            "serve": [sys.executable, "-m", "multimodal", "serve", str(run), str(index), "--port", "0"],
        }
        if options.workers:
            commands["workers"] = [*commands["serve"], "--workers", str(options.workers)]
        measured: dict[tuple[str, int], list[dict[str, float]]] = {}
        for number in range(options.rounds):
            for side in sorted(commands, reverse=bool(number % 2)):  # none always comes first
                with running(commands[side]) as (port, process):
                    for clients in options.clients:
                        processes = processes_of(process)
                        before = [processor_seconds(one) for one in processes]
                        figures = asyncio.run(load(port, texts, clients, options.seconds))
                        after = [processor_seconds(one) for one in processes]
                        spent = 1000 * np.subtract(after, before) / figures.pop("answers")
                        figures |= {"cpu_ms": float(spent.sum()), "first_ms": float(spent[0])}
                        measured.setdefault((side, clients), []).append(figures)
    times = f"{'p50 ms':>7} {'p99 ms':>7} {'cpu ms':>6} {'first':>5}"
    print(f"{'clients':>7} {'side':7} {'answers/s':>9} {times} {'failed':>6}  ratio")
    rows = []
    for clients in options.clients:
        rates = {side: [figures["per_second"] for figures in measured[side, clients]] for side in commands}
        for side in commands:
            of_rounds = sorted(measured[side, clients], key=lambda figures: figures["per_second"])
            middle = of_rounds[len(of_rounds) // 2]
            failed = sum(int(figures["failed"]) for figures in of_rounds)
            row = {"clients": clients, "side": side, **middle, "failed": failed}
            shown = ""
            if (other := COMPARED_WITH.get(side)) is not None:
                row["ratios"] = ratios = [a / b for a, b in zip(rates[side], rates[other], strict=True)]
                shown = f"{statistics.median(ratios):.2f} of {other} ({min(ratios):.2f}, {max(ratios):.2f})"
            rows.append(row)
            print(
                f"{clients:7} {side:7} {middle['per_second']:9.1f} {middle['p50_ms']:7.1f} {middle['p99_ms']:7.1f}"
                f" {middle['cpu_ms']:6.2f} {middle['first_ms']:5.2f} {failed:6}  {shown}"
            )
    record(options, rows)


if __name__ == "__main__":
    main()
