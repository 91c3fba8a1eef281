"""The exceptions that a user sees; any other exception is a defect of this package."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

MAX_CHARACTERS = 200  # of a value in a message
MAX_KNOWN = 15  # names that a message lists
LONG_WORD = re.compile(r"\S{1001,}")


class MultimodalError(Exception):
    """The user's input or environment is at fault.

    The message names the file, row, column, modality or key at fault and what would be right. The command line prints
    it as one line and ends with exit code 1.

    Args:
        message: what is wrong; words of more than 1,000 characters, which are values of the input, are cut.

    Examples:
        >>> len(str(MultimodalError(f"There is no encoder {'x' * 100_000}.")))
        220
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(LONG_WORD.sub(lambda word: word[0][: MAX_CHARACTERS - 1] + "…", str(message)))


class UsageError(MultimodalError):
    """The call itself is wrong (an unknown option or name); the command line ends with exit code 2."""


class Unreadable(MultimodalError):
    """A value of the data cannot be read. The reader skips its row and counts it under ``reason``.

    Args:
        reason: what is wrong in a few words without the value, equal for all values with the same fault ("missing file").
        message: what is wrong with this value and what would be right.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(
        self,
    ) -> tuple[type[Unreadable], tuple[str, str]]:  # pickled between the workers and the main process
        return type(self), (self.reason, str(self))


def suggest(word: str, known: list[str]) -> str:
    """Return the end of an error message: the close matches of ``word``, then the known names, of many the first ones.

    Examples:
        >>> suggest("colur", ["colour", "price"]), suggest("x", [f"c{n:02}" for n in range(40)])[-28:]
        (" Did you mean 'colour'? Known: colour, price.", 'c12, c13, c14 and 25 others.')
    """
    names = sorted(known)
    listed = ", ".join(map(shown, names[:MAX_KNOWN])) or "none"
    more = f" and {len(names) - MAX_KNOWN:,} others" if len(names) > MAX_KNOWN else ""
    return f"{did_you_mean(word, known)} Known: {listed}{more}."


def suggest_near(word: str, known: list[str]) -> str:
    """Return the end of an error message: the close matches of ``word``, or all known names if there are none."""
    return did_you_mean(word, known) or suggest(word, known)


def did_you_mean(word: str, known: list[str]) -> str:
    """Return the end of an error message: the close matches of ``word``, or nothing."""
    from difflib import get_close_matches

    longer = [name for name in known if len(word) >= 3 and name.startswith(word)]  # of which it is an abbreviation
    close = longer[:3] or get_close_matches(word, known, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(name) for name in close)}?" if close else ""


def shown(value: Any) -> str:
    """Shorten a value to at most 200 characters for a message, all of which UTF-8 can encode."""
    if isinstance(value, int) and value.bit_length() > 1000:
        return f"<whole number of {value.bit_length()} bits>"  # Python does not convert very long ones to text
    text = f"<{len(value)} bytes>" if isinstance(value, bytes) else str(value)
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"


def check_names(
    call: str, given: Iterable[str], known: Iterable[str], elsewhere: Mapping[str, str] | None = None
) -> None:
    """Check that all keyword arguments of a call are known.

    Args:
        call: the function's name, for the error.
        given: the names of the arguments.
        known: the names that the function takes.
        elsewhere: a name that people try -> where this is set instead, a sentence.

    Raises:
        UsageError: a name is unknown; the message lists the close matches, or all names if there is no close one.
    """
    known = list(known)
    for name in given:
        if name not in known:
            hint = (elsewhere or {}).get(name)
            hint = suggest_near(name, known) if hint is None else f" {hint}"
            raise UsageError(f"{call}() takes no argument {name!r}.{hint}")
