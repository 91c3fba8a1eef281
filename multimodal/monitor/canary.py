"""Canaries: queries whose hits are known, searched again after every change of a model or an index.

1. ``read_canaries`` turns a table into canaries: a value of one or several modalities, and the keys to be found.
2. ``run_canaries`` searches each of them, and says which keys are missing and what was found instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from multimodal.core.encoder import Processor
from multimodal.core.errors import MultimodalError, UsageError, shown, suggest
from multimodal.core.html_table import cell_text, shorten
from multimodal.core.table import Table
from multimodal.data.tables.file_cells import resolve_file_cell
from multimodal.data.tables.open import open_table
from multimodal.search.hits import Hits
from multimodal.search.index import Index

MAX_CANARIES = 10_000
MAX_EXPECTED = 1000  # keys of a canary
EXPECTED = "expected"
SETTINGS = (EXPECTED, "k", "target", "where")
SHOWN = 3  # hits that a line names
MAX_QUERY = 60  # characters of a query in a line


@dataclass(frozen=True)
class Canary:
    """A query and what it has to find.

    Args:
        query: modality -> its value; a file is a path, or its bytes.
        expected: keys of rows, all of which have to be among the first k hits, or other rows of their groups.
        k: number of hits that are looked at.
        target: search only the vectors of this modality. None: all vectors.
        where: search only rows that meet these conditions: column -> a value, several, or a range, see ``Index.search``.

    Examples:
        >>> Canary({"text": "a red cup"}, ("cup-1",)).k
        10
    """

    query: Mapping[str, Any]
    expected: tuple[str, ...]
    k: int = 10
    target: str | None = None
    where: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        words = ", ".join(f"{modality} {cell_text(value)!r}" for modality, value in self.query.items())
        return shorten(" ".join(words.split()), MAX_QUERY)


@dataclass(frozen=True)
class CanaryOutcome:
    """What a canary found.

    Attributes:
        canary: the canary.
        hits: its first k hits.
        missing: the expected keys that are not among them.
        unknown: those of the missing keys that the index does not have at all.

    Examples:
        >>> outcome = CanaryOutcome(Canary({"text": "cup"}, ("cup-1", "cup-2")), Hits(), ("cup-2",), ())
        >>> outcome.passed, outcome.recall
        (False, 0.5)
    """

    canary: Canary
    hits: Hits
    missing: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every expected key was found."""
        return not self.missing

    @property
    def recall(self) -> float:
        """The fraction of the expected keys that were found."""
        return 1 - len(self.missing) / len(self.canary.expected)

    def __str__(self) -> str:
        found = ", ".join(f"{hit.key} ({hit.score:.3f})" for hit in self.hits[:SHOWN]) or "nothing"
        more = f" and {len(self.hits) - SHOWN} others" if len(self.hits) > SHOWN else ""
        gone = f" (not in the index: {', '.join(self.unknown)})" if self.unknown else ""
        return f"{self.canary}: expected {', '.join(self.missing)}{gone}, found {found}{more}"

    def to_json(self) -> dict[str, Any]:
        """Return this outcome as JSON values."""
        return {
            "query": {m: shown(v) if isinstance(v, bytes) else cell_text(v) for m, v in self.canary.query.items()},
            "expected": list(self.canary.expected),
            "k": self.canary.k,
            "passed": self.passed,
            "recall": self.recall,
            "missing": list(self.missing),
            "unknown": list(self.unknown),
            "hits": [{"key": hit.key, "score": hit.score} for hit in self.hits],
        }


@dataclass(frozen=True)
class CanaryResult:
    """The outcomes of all canaries, in their order.

    Attributes:
        outcomes: one for each canary.

    Examples:
        >>> good = CanaryOutcome(Canary({"text": "cup"}, ("cup-1",)), Hits(), (), ())
        >>> poor = CanaryOutcome(Canary({"text": "mug"}, ("mug-1",)), Hits(), ("mug-1",), ())
        >>> CanaryResult((good, poor))
        1 of 2 canaries failed, recall 0.500
        text 'mug': expected mug-1, found nothing
    """

    outcomes: tuple[CanaryOutcome, ...]

    @property
    def rate(self) -> float:
        """The fraction of the canaries that passed, in [0, 1]."""
        return float(self.passed.mean())

    @property
    def recall(self) -> float:
        """The mean recall of the canaries, in [0, 1]."""
        return float(np.mean([outcome.recall for outcome in self.outcomes]))

    @property
    def passed(self) -> np.ndarray:
        """Which canaries passed, ``(n,)`` bool, for a paired comparison of two models."""
        return np.array([outcome.passed for outcome in self.outcomes])

    @property
    def failed(self) -> list[CanaryOutcome]:
        """The outcomes of the canaries that failed."""
        return [outcome for outcome in self.outcomes if not outcome.passed]

    def __repr__(self) -> str:
        summary = f"{len(self.failed):,} of {len(self.outcomes):,} canaries failed, recall {self.recall:.3f}"
        return "\n".join([summary, *map(str, self.failed)])

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "canaries": len(self.outcomes),
            "failed": len(self.failed),
            "rate": self.rate,
            "recall": self.recall,
            "outcomes": [outcome.to_json() for outcome in self.outcomes],
        }


def read_canaries(table: Any, processors: Mapping[str, Processor]) -> list[Canary]:
    """Read canaries from a table.

    It has a column for each modality of the queries, ``expected``, and, if wanted, ``k``, ``target`` and ``where``. Other
    columns are for the reader.

    Args:
        table: a table's name (CSV, JSON Lines, Parquet, ...) or, in Python, a table in memory, see ``open_table``. A cell of
            ``expected`` is a key, or a list of keys (in CSV as JSON: ``["cup-1", "cup-2"]``); one of ``where`` is column ->
            value (in CSV as JSON: ``{"category": "cups"}``). Files are relative to the table.
        processors: modality -> its processor, see ``Embedder.processors``.

    Returns:
        The canaries, in the order of the rows; at most 10,000.

    Raises:
        UsageError: there are none or too many, a row has no query or no expected key, or a setting of it is wrong.
        MultimodalError: the table cannot be read.

    Examples:
        >>> from multimodal import create
        >>> processors = {"text": create("text", "bag").processor}
        >>> read_canaries([{"text": "a red cup", "expected": ["cup-1"], "k": 3}], processors)
        [Canary(query={'text': 'a red cup'}, expected=('cup-1',), k=3, target=None, where=None)]
    """
    opened = open_table(table, access="memory") if isinstance(table, str) else open_table(table)
    if EXPECTED not in opened.columns:
        raise UsageError(f"The table {opened.name!r} of canaries has no column {EXPECTED!r}, of the keys to be found.")
    modalities = [column for column in opened.columns if column in processors]
    if not modalities:
        raise UsageError(
            f"The table {opened.name!r} of canaries has no column of a modality.{suggest('', sorted(processors))}"
        )
    if not 1 <= len(opened) <= MAX_CANARIES:
        raise UsageError(f"A table of canaries has 1 to {MAX_CANARIES:,} rows, {opened.name!r} has {len(opened):,}.")
    return [_read(opened, row, modalities, processors) for row in range(len(opened))]


def _read(table: Table, row: int, modalities: list[str], processors: Mapping[str, Processor]) -> Canary:
    cells = {column: table.value(row, column) for column in (*modalities, *SETTINGS) if column in table.columns}
    present = {name: value for name, value in cells.items() if value is not None and value != ""}
    where = f"Canary {row} of {table.name!r}"
    query = {modality: present[modality] for modality in modalities if modality in present}
    if not query:
        raise UsageError(f"{where} has no query: give a value of {' or '.join(modalities)}.")
    for modality in query:
        if processors[modality].reads_files:
            query[modality] = resolve_file_cell(query[modality], table.base)
    expected = _parsed(present.get(EXPECTED), list, where)
    expected = tuple(map(str, expected if isinstance(expected, list | tuple) else [expected]))
    if EXPECTED not in present or not 1 <= len(expected) <= MAX_EXPECTED:
        raise UsageError(f"{where} needs 1 to {MAX_EXPECTED:,} keys in {EXPECTED!r}.")
    k = present.get("k", 10)
    if not str(k).isascii() or not str(k).removesuffix(".0").isdigit() or int(float(k)) < len(expected):
        raise UsageError(f"{where}: k is a whole number, not below the {len(expected)} expected keys, got {shown(k)}.")
    conditions = _parsed(present.get("where"), dict, where)
    if not isinstance(conditions, dict | None):
        raise UsageError(f"{where}: where is column -> value, like {{'category': 'cups'}}, got {shown(conditions)}.")
    conditions = {column: value for column, value in (conditions or {}).items() if value is not None} or None
    return Canary(query, tuple(dict.fromkeys(expected)), int(float(k)), present.get("target"), conditions)


def _parsed(cell: Any, kind: type[list[Any]] | type[dict[str, Any]], where: str) -> Any:
    """Return a cell; one that begins like a JSON list or object is parsed as one."""
    if not isinstance(cell, str) or not cell.lstrip().startswith("[" if kind is list else "{"):
        return cell
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        if kind is list:  # a key may begin with a bracket
            return cell
        raise UsageError(f"{where}: {shown(cell)} is not JSON.") from None


def run_canaries(index: Index, table: Any) -> CanaryResult:
    """Search the queries of a table of canaries, and compare the hits with the expected keys.

    A key counts as found where a row of its group is found, as each group is found once, by its best vector.

    Args:
        index: the index; it knows its model, see ``Index.open``.
        table: see ``read_canaries``; or a list of ``Canary``.

    Raises:
        UsageError: the index does not know its model, or see ``read_canaries``.
        MultimodalError: a query cannot be read, or the index is damaged.

    Examples:
        >>> from multimodal import create, Embedder
        >>> embedder = Embedder({"text": create("text", "bag")}, dim=8)
        >>> embedder.fit_processors({"text": ["cups", "hats"] * 3})
        >>> index = Index.from_table(embedder, [{"name": "cups"}, {"name": "hats"}], columns={"text": "name"}, key="name")
        >>> run_canaries(index, [{"text": "cups", "expected": "cups", "k": 1}, {"text": "hats", "expected": "gloves"}])
        1 of 2 canaries failed, recall 0.500
        text 'hats': expected gloves (not in the index: gloves), found hats (1.000), cups (...)
    """
    embedder = index.need_model()
    of_list = isinstance(table, list) and bool(table) and all(isinstance(entry, Canary) for entry in table)
    canaries: list[Canary] = table if of_list else read_canaries(table, embedder.processors)
    encoded: list[dict[str, np.ndarray]] = [{} for _ in canaries]
    for modality in dict.fromkeys(modality for canary in canaries for modality in canary.query):
        places = [place for place, canary in enumerate(canaries) if modality in canary.query]
        values = [canaries[place].query[modality] for place in places]
        try:
            vectors = embedder.encode(batch_size=256, precision="float32", **{modality: values})
        except MultimodalError as error:
            raise MultimodalError(f"The canaries' values of {modality} cannot be encoded: {error}") from error
        for place, vector in zip(places, vectors, strict=True):
            encoded[place][modality] = vector
    found = [
        index.search_encoded(query, canary.k, canary.target, where=canary.where)
        for canary, query in zip(canaries, encoded, strict=True)
    ]
    keys = {key for canary in canaries for key in canary.expected} | {hit.key for hits in found for hit in hits}
    items = index.engine.select(keys=sorted(keys))[1]
    groups = dict(zip(items["key"].to_pylist(), items["group"].to_pylist(), strict=True))
    return CanaryResult(
        tuple(_compare(canary, hits, groups) for canary, hits in zip(canaries, found, strict=True)),
    )


def _compare(canary: Canary, hits: Hits, groups: Mapping[str, str]) -> CanaryOutcome:
    reached = {groups.get(hit.key) for hit in hits}
    missing = tuple(key for key in canary.expected if key not in groups or groups[key] not in reached)
    return CanaryOutcome(canary, hits, missing, tuple(key for key in missing if key not in groups))
