"""Commands in processes of their own, started at once: a server that has imported everything forks them."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "datasets",
        "multimodal_encoders.text.bag_of_words",
        *(f"multimodal.{name}" for name in ("cli.main", "experiment.lightning_cli", "search.embed", "search.index")),
        *(f"multimodal.{name}" for name in ("prepare.table", "export.folder", "data.run_data")),
    ]
)


class Command:
    """A command that runs; ``kill`` ends it at once, with the data workers that it started.

    Args:
        arguments: those of ``multimodal``.
        log: the file that gets what it prints.
        cache: the cache folder; None: one next to the log.
    """

    def __init__(self, arguments: Sequence[object], log: Path, cache: Path | None = None) -> None:
        self.log = log
        strings = [str(argument) for argument in arguments]
        self.process: ForkServerProcess = CONTEXT.Process(
            target=_run, args=(strings, str(log), str(cache or log.with_name("cache")))
        )
        self.process.start()

    def wait(self) -> int:
        """Return the exit code: negative for a signal."""
        self.process.join(300)
        assert self.process.exitcode is not None, self.printed
        return self.process.exitcode

    def signal(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def kill(self) -> int:
        self.process.kill()
        return self.wait()

    @property
    def printed(self) -> str:
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    @property
    def last_line(self) -> str:
        return (self.printed.splitlines() or [""])[-1]


def _run(arguments: list[str], log: str, cache: str) -> None:
    os.environ["MULTIMODAL_CACHE"] = cache
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    from multimodal.cli.main import main

    code = main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
