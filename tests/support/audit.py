"""What a block of code does to the machine, by Python's audit events: imports, commands, connections, files that it writes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PLANTED = (
    "planted"  # begins the names of modules that a test puts where Python finds them, and of the events that they raise
)
COMMANDS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "pty.spawn")
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.bind")
CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.link", "os.symlink", "shutil.rmtree")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

TYPESHED = "import sys, json; print(json.dumps(sys.path))"  # a program of jsonargparse's library, without any data

_state: dict[str, Any] = {"installed": False, "seen": None, "folders": (), "imports": False}


@contextmanager
def watched(*folders: Path, imports: bool) -> Iterator[list[str]]:
    """Yield a list to which each event is added that the block must not cause.

    Args:
        *folders: where it may write.
        imports: whether it may import planted modules.
    """
    if not _state["installed"]:
        sys.addaudithook(_hook)  # cannot be removed
        _state["installed"] = True
    allowed = (*(str(folder.resolve()) for folder in folders), os.devnull)
    seen: list[str] = []
    _state.update(seen=seen, folders=allowed, imports=imports)
    try:
        yield seen
    finally:
        _state["seen"] = None


def _hook(event: str, args: tuple[Any, ...]) -> None:
    seen = _state["seen"]
    if seen is None:
        return
    _state["seen"] = None  # what this function itself causes does not count
    try:
        if _is_forbidden(event, args):
            seen.append(f"{event} {str(args)[:300]}")
    finally:
        _state["seen"] = seen


def _is_forbidden(event: str, args: tuple[Any, ...]) -> bool:
    if event == "import":
        return not _state["imports"] and str(args[0]).startswith(PLANTED)
    if event == "open":
        path, mode, flags = args
        writes = any(c in mode for c in "wax+") if isinstance(mode, str) else bool(flags & WRITING)
        return writes and not isinstance(path, int) and not _is_inside(path)
    if event in CHANGES:
        return not all(_is_inside(arg) for arg in args if isinstance(arg, str | bytes))
    if event == "subprocess.Popen" and args[1] == [sys.executable, "-c", TYPESHED]:
        return False
    return event in (*COMMANDS, *NETWORK, "pickle.find_class", f"{PLANTED}.call")


def _is_inside(path: str | bytes | os.PathLike[str]) -> bool:
    resolved = os.path.realpath(os.fsdecode(path))
    return resolved.startswith(_state["folders"])
