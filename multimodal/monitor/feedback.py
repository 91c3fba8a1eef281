"""Feedback on hits: the lines that the server appends to a file, read back.

1. A line is a JSON object: a verdict about a row, for a query. ``up`` and ``down`` are thumbs, ``clicked`` says that a person
   used a hit, ``missing`` that a row which was not found should have been; ``unused`` is of no row: hits were shown, and none
   was used.
2. ``position`` is the place of the hit among those shown, from 1; ``shown`` are the keys of these, the first first.
3. ``user`` is a salted hash. Lines without one are all of one user, as anyone may write them.
4. The file is written by whoever reaches the server, so each line is checked, and wrong ones are counted and left out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multimodal.core.errors import MultimodalError

VERDICTS = ("up", "down", "clicked", "missing", "unused")
MAX_READ_BYTES = 64 * 2**20  # the newest lines
MAX_LINE_BYTES = 300_000
MAX_TEXT = 2000  # characters of a key, a name or a value
MAX_VALUES = 20  # of a query
MAX_SHOWN = 100  # keys
MAX_POSITION = 10_000


@dataclass(frozen=True)
class Judgement:
    """A verdict about a row, for a query.

    Attributes:
        verdict: one of ``VERDICTS``.
        key: key of the row; "" if it is unused.
        modality: modality of the hit; of a missing row, the one that was searched, or "".
        query: modality -> its value, files by their names.
        position: place among the hits, from 1; None: unknown, or it was not found.
        query_id: the search in which it was judged; "": unknown.
        user: a salted hash of who judged; "": not known.
        shown: keys of the hits that were shown, the first first.

    Examples:
        >>> Judgement("clicked", "cup-1", "image", {"text": "a red cup"}, position=3).queried
        (('text', 'a red cup'),)
    """

    verdict: str
    key: str
    modality: str
    query: Mapping[str, str]
    position: int | None = None
    query_id: str = ""
    user: str = ""
    shown: tuple[str, ...] = ()

    @property
    def queried(self) -> tuple[tuple[str, str], ...]:
        """The query as modality and value, sorted, by which equal queries are found."""
        return tuple(sorted((modality, " ".join(value.split())) for modality, value in self.query.items()))


@dataclass(frozen=True)
class Feedback:
    r"""The judgements of a file.

    Attributes:
        judgements: in the order of the file.
        rejects: what is wrong with a line -> number of such lines.
        skipped_bytes: size of the beginning of the file that was not read, as it is too large.

    Examples:
        >>> _ = Path("feedback.jsonl").write_text('{"verdict": "up", "key": "cup-1", "modality": "image"}\n{"old": true}\n')
        >>> read_feedback("feedback.jsonl")
        1 judgement (1 up), 1 line left out: no verdict 1
    """

    judgements: list[Judgement]
    rejects: Mapping[str, int] = field(default_factory=dict)
    skipped_bytes: int = 0

    def __repr__(self) -> str:
        count, wrong = len(self.judgements), sum(self.rejects.values())
        verdicts = Counter(judgement.verdict for judgement in self.judgements)
        listed = ", ".join(f"{verdicts[name]:,} {name}" for name in VERDICTS if verdicts[name])
        text = f"{count:,} judgement{'s' * (count != 1)}" + (f" ({listed})" if listed else "")
        if wrong:
            reasons = ", ".join(f"{reason} {number:,}" for reason, number in self.rejects.items())
            text += f", {wrong:,} line{'s' * (wrong != 1)} left out: {reasons}"
        return text + (f"; the first {self.skipped_bytes:,} bytes were not read" if self.skipped_bytes else "")


class Malformed(ValueError):
    """A line that is not a judgement; the message is a reason that is counted.

    Examples:
        >>> raise Malformed("no key")
        Traceback (most recent call last):
            ...
        multimodal.monitor.feedback.Malformed: no key
    """


def read_feedback(file: str | Path, max_bytes: int = MAX_READ_BYTES) -> Feedback:
    """Read a file of judgements, or of a larger file its newest lines.

    Args:
        file: JSON Lines, as ``multimodal serve --feedback FILE`` writes them. A last line that is not whole is left for
            later.
        max_bytes: how much of the file is read, from its end.

    Returns:
        The judgements, and the numbers of other lines.

    Raises:
        MultimodalError: the file cannot be read.
    """
    try:
        with open(file, "rb") as opened:
            size = opened.seek(0, 2)
            start = max(0, size - max_bytes)
            opened.seek(start)
            content = opened.read(size - start)
    except OSError as error:
        raise MultimodalError(f"The feedback {file} cannot be read ({error.strerror}).") from error
    *lines, last = content.split(b"\n")
    judgements, rejects = [], Counter[str]()
    for line in filter(bytes.strip, lines[1:] if start else lines):
        try:
            judgements.append(parse_judgement(line))
        except Malformed as error:
            rejects[str(error)] += 1
    with suppress(Malformed):  # it may be written at this moment
        judgements.append(parse_judgement(last))
    return Feedback(judgements, dict(rejects), start)


def parse_judgement(line: bytes | str) -> Judgement:
    """Return the judgement of a line.

    Args:
        line: a JSON object; lines of earlier versions have no position, query_id, user and shown.

    Raises:
        Malformed: it is not a judgement.

    Examples:
        >>> parse_judgement('{"verdict": "down", "key": "cup-1", "modality": "text", "query": {"text": "hat"}}').verdict
        'down'
    """
    if len(line) > MAX_LINE_BYTES:
        raise Malformed("too long")
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Malformed("not JSON") from error
    if not isinstance(entry, dict):
        raise Malformed("not an object")
    if entry.get("verdict") not in VERDICTS:
        raise Malformed("no verdict" if "verdict" not in entry else "unknown verdict")
    query = entry.get("query") or {}
    if not isinstance(query, dict) or len(query) > MAX_VALUES or not all(_is_text(v) for v in query.values()):
        raise Malformed("wrong query")
    position = entry.get("position")
    if position is not None and not (type(position) is int and 1 <= position <= MAX_POSITION):
        raise Malformed("wrong position")
    shown = entry.get("shown") or []
    if not isinstance(shown, list) or len(shown) > MAX_SHOWN or not all(map(_is_text, shown)):
        raise Malformed("wrong shown")
    texts = {name: entry.get(name) or "" for name in ("key", "modality", "query_id", "user")}
    if wrong := [name for name, text in texts.items() if not _is_text(text)]:
        raise Malformed(f"wrong {wrong[0]}")
    if not texts["key"] and entry["verdict"] != "unused":
        raise Malformed("no key")
    return Judgement(entry["verdict"], query=query, position=position, shown=tuple(shown), **texts)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT
