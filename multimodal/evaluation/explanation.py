"""Why two values matched: the score, and how much of it each part of either value is worth."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from multimodal.core.errors import UsageError
from multimodal.core.html_table import html_table, shorten
from multimodal.core.system_errors import writing
from multimodal.evaluation.explanation_page import page, piece
from multimodal.evaluation.grid import Grid, number
from multimodal.evaluation.render import render_text

SHOWN, SHOWN_ON_PAGE = 10, 15  # parts in a table
NAME = 60  # characters of a part's name in a table


@dataclass(frozen=True)
class Part:
    """A part of a value.

    Attributes:
        number: its place among the parts that the processor named, from 0.
        name: its name.
        kind: what it is: "word", "atom".
        change: the score minus the score without the part, in [-2, 2]: how much of the score it is worth. Negative: the score
            is higher without it. NaN: not known.
        note: why the change is not known; "": it is.
    """

    number: int
    name: str
    kind: str
    change: float
    note: str = ""


@dataclass(frozen=True)
class ExplainedValue:
    """One of the two values of an explanation.

    Attributes:
        modality: its modality.
        text: the value as a short text.
        parts: its parts, what is worth most first, what is not known last.
        note: what there is to say about all parts, such as that the processor has none; "": nothing.
        drawing: the value with its parts coloured, as a piece of HTML; "": there is none.

    Examples:
        >>> value = ExplainedValue("text", "red cup", (Part(1, "cup", "word", 0.5), Part(0, "red", "word", -0.1)))
        >>> value.grid("", shown=1).rows, value.notes(shown=1)
        ([['cup', 'word', '+0.500']], ['And 1 more, worth -0.100 to -0.100.'])
    """

    modality: str
    text: str
    parts: tuple[Part, ...]
    note: str = ""
    drawing: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the value as JSON values, without the drawing; a change that is not known is null."""
        parts = [asdict(p) | {"change": p.change if math.isfinite(p.change) else None} for p in self.parts]
        return {"modality": self.modality, "value": self.text, "parts": parts, "note": self.note}

    def grid(self, title: str, shown: int = SHOWN) -> Grid:
        """Return the parts that change the score most, for and against the match, as a table.

        Args:
            title: the table's title.
            shown: how many parts at most.
        """
        rows = [[shorten(p.name, NAME), p.kind, _signed(p.change)] for p in self._strongest(shown)]
        return Grid(title, ["part", "kind", "worth"], rows)

    def notes(self, shown: int = SHOWN) -> list[str]:
        """Return what there is to say below the table of ``grid``."""
        lines = [self.note] if self.note else []
        strongest = {p.number for p in self._strongest(shown)}
        rest = [p.change for p in self.parts if p.number not in strongest and math.isfinite(p.change)]
        if rest:
            lines.append(f"And {len(rest):,} more, worth {_signed(min(rest))} to {_signed(max(rest))}.")
        unknown = [p for p in self.parts if not math.isfinite(p.change)]
        if unknown:
            first = f"{shorten(unknown[0].name, NAME)}: {unknown[0].note}"
            lines.append(f"Of {len(unknown):,} the worth is not known. {first}")
        return lines

    def html(self, role: str) -> str:
        """Return the value as a heading, its drawing, the table of its parts, and what there is to say."""
        heading = f"<h2>{role}: {html.escape(self.modality)} {html.escape(self.text)}</h2>"
        grid = self.grid("", SHOWN_ON_PAGE)
        table = html_table(grid.columns, grid.rows) if self.parts else ""
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes(SHOWN_ON_PAGE))
        return f"{heading}{self.drawing}{table}{notes}"

    def _strongest(self, shown: int) -> list[Part]:
        """Return the parts with the largest changes, in order; the first of all is one of them."""
        known = [p for p in self.parts if math.isfinite(p.change)]
        by_size = sorted(known[1:], key=lambda p: -abs(round(p.change, 6)))
        chosen = {p.number for p in [*known[:1], *by_size[: shown - 1]]}
        return [p for p in known if p.number in chosen]


@dataclass(frozen=True)
class Explanation:
    """Why a query and a candidate have their score; it prints as two tables, and a notebook shows the drawings.

    Attributes:
        score: the cosine similarity of the two values, in [-1, 1].
        query: the query and its parts.
        match: the candidate and its parts.

    Examples:
        >>> words = (Part(1, "cup", "word", 0.5), Part(0, "red", "word", -0.1))
        >>> text = ExplainedValue("text", "red cup", words)
        >>> print(Explanation(0.8, text, ExplainedValue("image", "cup.png", (), "The picture has no parts.")))
        score 0.800
        query: text red cup
        part kind  worth
        ────────────────
        cup  word +0.500
        red  word -0.100
        match: image cup.png
        The picture has no parts.
    """

    score: float
    query: ExplainedValue
    match: ExplainedValue

    @property
    def values(self) -> dict[str, ExplainedValue]:
        """The two values, by "query" and "match"."""
        return {"query": self.query, "match": self.match}

    def __str__(self) -> str:
        lines: list[Any] = [f"score {number(self.score)}"]
        for role, value in self.values.items():
            title = f"{role}: {value.modality} {value.text}"
            lines += [title, *([value.grid("").table()] if value.parts else []), *value.notes()]
        return "\n".join(line.rstrip() for line in render_text(lines).splitlines() if line.strip())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return piece(self.score, self._sections())

    def _sections(self) -> list[str]:
        return [value.html(role) for role, value in self.values.items()]

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``multimodal explain --json`` prints: the score, and all parts of both values."""
        return {"score": self.score} | {role: value.to_json() for role, value in self.values.items()}

    def save(self, path: str | Path) -> None:
        """Write the explanation to a file: a page with the drawings (``.html``) or the document of ``to_json`` (``.json``).

        The page is one file, without scripts, that opens without a network; an existing file is replaced.

        Raises:
            UsageError: the path has another suffix.
            MultimodalError: the file cannot be written.
        """
        path = check_path(path)
        content = json.dumps(self.to_json(), indent=1) + "\n"
        if path.suffix == ".html":
            title = f"{self.query.modality} and {self.match.modality}: score {self.score:.3f}"
            content = page(title, self.score, self._sections())
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8", newline="\n")


def check_path(path: str | Path, suffixes: Sequence[str] = (".html", ".json")) -> Path:
    """Return the path of an explanation's file.

    Args:
        path: the path.
        suffixes: the suffixes that it may have.

    Raises:
        UsageError: it has another suffix, or is a folder.
    """
    path = Path(path)
    if path.suffix not in suffixes:
        raise UsageError(f"{path} does not end in {' or '.join(suffixes)}.")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file.")
    return path


def _signed(change: float) -> str:
    return f"{round(change, 3) + 0.0:+.3f}" if math.isfinite(change) else "-"  # +0.0: no negative zero
