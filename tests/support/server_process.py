"""A server in a process of its own."""

from __future__ import annotations

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
