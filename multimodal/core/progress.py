"""Progress of long work, on standard error: a bar in a terminal; elsewhere a line every ten seconds."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

INTERVAL = 10.0  # seconds between two lines


def in_terminal(console: Console) -> bool:
    """Return whether a bar can be drawn. A notebook draws none without another package, so it gets lines."""
    return console.is_terminal and not console.is_jupyter


def duration(seconds: float) -> str:
    """Write a duration as people do.

    Examples:
        >>> duration(7.4), duration(201), duration(5400)
        ('7 s', '3 min 21 s', '1 h 30 min')
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class ProgressLine:
    """The state of some work as a line of text.

    Args:
        what: what is done, like "Embedding".
        total: the number of rows; None: not known.
        unit: what is counted, in the plural.
        clock: returns the time in seconds.

    Examples:
        >>> line = ProgressLine("Embedding", 4000, clock=iter([0.0, 20.0]).__next__)
        >>> line.advance(1000)
        >>> str(line)
        'Embedding: 1,000 of 4,000 rows, 50 rows/s, 1 min 0 s left'
    """

    def __init__(
        self, what: str, total: int | None, unit: str = "rows", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.what, self.total, self.unit, self.done = what, total, unit, 0
        self._clock, self._start = clock, clock()

    def advance(self, rows: int) -> None:
        """Count rows that are done."""
        self.done += rows

    def __str__(self) -> str:
        seconds = self._clock() - self._start
        if not self.done:
            return f"{self.what}: {duration(seconds)} so far"
        of = f" of {self.total:,}" if self.total else ""
        text = f"{self.what}: {self.done:,}{of} {self.unit}, {self.done / seconds:,.3g} {self.unit}/s"
        return f"{text}, {duration(seconds * (self.total - self.done) / self.done)} left" if self.total else text


@contextmanager
def progress(what: str, total: int | None = None, unit: str = "rows") -> Iterator[Callable[[int], None]]:
    """Show the progress of a block: a bar in a terminal, elsewhere a line every ten seconds, also while nothing advances.

    Args:
        what: what the block does, like "Embedding".
        total: the number of rows; None: not known.
        unit: what is counted, in the plural.

    Yields:
        A function to call with the number of rows of each finished step.
    """
    from rich.console import Console

    console = Console(stderr=True)
    with _bar(console, what, total) if in_terminal(console) else _lines(what, total, unit) as advance:
        yield advance


@contextmanager
def _bar(console: Console, what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    counts = (MofNCompleteColumn(), TimeRemainingColumn()) if total else (TimeElapsedColumn(),)
    with Progress(TextColumn("{task.description}"), BarColumn(), *counts, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda rows: bar.advance(task, rows)


@contextmanager
def _lines(what: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    line, finished = ProgressLine(what, total, unit), threading.Event()

    def write() -> None:
        while not finished.wait(INTERVAL):
            print(line, file=sys.stderr, flush=True)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        yield line.advance
    finally:
        finished.set()
        writer.join()
