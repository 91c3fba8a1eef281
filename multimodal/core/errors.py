"""The exceptions that a user sees; any other exception is a defect of this package."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

SHOWN = 200  # characters of a value


class MultimodalError(Exception):
    """The user's input or environment is at fault.

    The message names the file, row, column, modality or key at fault and what would be right. The command line prints
    it as one line and ends with exit code 1.
    """


class UsageError(MultimodalError):
    """The call itself is wrong (an unknown option or name); the command line ends with exit code 2."""


class Unreadable(MultimodalError):
    """A value of the data cannot be read. The reader skips its row and counts it under ``reason``.

    Args:
        reason: what is wrong in some words without the value, equal for all values of that fault ("missing file").
        message: what is wrong with this one and what would be right.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[Unreadable], tuple[str, str]]:  # it crosses from workers to the main process
        return type(self), (self.reason, str(self))


def suggest(word: str, known: list[str]) -> str:
    """Return the end of an error message: the close matches of ``word``, then everything known."""
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(name) for name in close)}?" if close else ""
    return f"{hint} Known: {', '.join(sorted(known)) or 'none'}."


def shown(value: Any) -> str:
    """Shorten a value for a message, in characters that any terminal can write."""
    if isinstance(value, int) and value.bit_length() > 1000:
        return f"<whole number of {value.bit_length()} bits>"  # Python refuses to write out very long ones
    text = f"<{len(value)} bytes>" if isinstance(value, bytes) else str(value)
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def check_names(call: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise a ``UsageError`` with the close matches if a keyword argument is unknown.

    Args:
        call: the function's name, for the error.
        given: the names of the arguments.
        known: the names that it takes.
    """
    known = list(known)
    for name in given:
        if name not in known:
            raise UsageError(f"{call}() takes no argument {name!r}.{suggest(name, known)}")
