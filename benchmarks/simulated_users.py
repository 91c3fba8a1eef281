"""People who search the glyphs by name, simulated: they look at the first hits most, click what is right, and err at times."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from multimodal.data.samples import Samples
from multimodal.search.index import Index

SHOWN = 10  # hits on a page
WRONG = 0.05  # clicks on any of the hits that are shown
MISSING = 0.1  # of the searches that do not show the row: those in which it is reported
PHRASINGS: dict[str, Callable[[list[str]], str]] = {
    "name": " ".join,
    "reversed": lambda words: " ".join(words[::-1]),
    "without first": lambda words: " ".join(words[1:] if len(words) > 2 else words),
    "without last": lambda words: " ".join(words[:-1] if len(words) > 2 else words),
    "without common": lambda words: " ".join(
        [w for w in words if w not in ("letter", "sign", "with", "symbol")] or words
    ),
}


def glyphs() -> Samples:
    """The glyphs, as the demo's run has them."""
    columns = {"image": "image", "graph": "outline", "text": "name"}
    return Samples.of("glyphs", columns, key="key", group="character", split="split")


def one_drawing_each(samples: Samples) -> np.ndarray:
    """One row for each character: that of its evaluation split, or else the first."""
    held_out = np.concatenate([samples.rows(name) for name in ("validation", "unseen_characters")])
    first = np.unique(samples.group_numbers, return_index=True)[1]
    return np.sort(
        np.concatenate([held_out, first[~np.isin(samples.group_numbers[first], samples.group_numbers[held_out])]])
    )


def phrase(name: str, phrasing: str) -> str:
    """A name as a person may type it."""
    return PHRASINGS[phrasing](name.lower().split())


@dataclass(frozen=True)
class Asked:
    """A query of a simulated user.

    Attributes:
        text: what is typed.
        key: key of the row that is looked for.
        group: its group.
    """

    text: str
    key: str
    group: str


def queries_of(samples: Samples, rows: Sequence[int], phrasings: Sequence[str]) -> list[Asked]:
    """The queries for rows, in each of some phrasings; those of equal words for different rows are left out."""
    asked = [
        Asked(phrase(name, phrasing), samples.key_of(row), samples.group_of(row))
        for row, name in zip(rows, samples.texts("name", rows), strict=True)
        if name is not None
        for phrasing in phrasings
    ]
    groups: dict[str, set[str]] = {}
    for one in asked:
        groups.setdefault(one.text, set()).add(one.group)
    return list({(one.text, one.key): one for one in asked if len(groups[one.text]) == 1}.values())


@dataclass
class Users:
    """Users who judge hits.

    Args:
        index: what they search.
        eta: they look at position p with probability p ** -eta.
        wrong: fraction of clicks on any of the shown hits; 1: all are.
        seed: of their behaviour.
    """

    index: Index
    eta: float = 1.0
    wrong: float = WRONG
    seed: int = 0

    def judge(self, asked: Sequence[Asked], sessions: int, target: str = "image") -> list[dict[str, Any]]:
        """The lines of feedback of several searches with each query, each by another user."""
        draws = np.random.default_rng(self.seed)
        assert self.index.embedder is not None
        vectors = self.index.embedder.encode(batch_size=256, precision="float32", text=[one.text for one in asked])
        lists = self.index.search(vectors, SHOWN, target, modality="text")
        items = self.index.engine.select(keys=sorted({hit.key for hits in lists for hit in hits}))[1]
        groups = dict(zip(items["key"].to_pylist(), items["group"].to_pylist(), strict=True))
        lines = []
        for session in range(sessions):
            for number, (one, hits) in enumerate(zip(asked, lists, strict=True)):
                shown = [hit.key for hit in hits]
                entry: dict[str, Any] = {
                    "query": {"text": one.text},
                    "target": target,
                    "modality": target,
                    "shown": shown,
                }
                entry |= {
                    "user": f"{self.seed}-{(number + session) % 97}",
                    "query_id": f"{self.seed}-{session}-{number}",
                }
                right = [place for place, key in enumerate(shown, 1) if groups[key] == one.group]
                if right and draws.random() < right[0] ** -self.eta:
                    place = int(draws.integers(1, len(shown) + 1)) if draws.random() < self.wrong else right[0]
                    lines.append(entry | {"verdict": "clicked", "key": shown[place - 1], "position": place})
                elif not right and draws.random() < MISSING:
                    wrong = draws.random() < self.wrong
                    key = shown[int(draws.integers(len(shown)))] if wrong else one.key
                    lines.append(entry | {"verdict": "missing", "key": key})
                else:
                    lines.append(entry | {"verdict": "unused"})
        return lines


def append(file: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Append lines of feedback to a file, as the server does."""
    with file.open("a", encoding="utf-8") as opened:
        opened.writelines(json.dumps(line) + "\n" for line in lines)


def reciprocal_ranks(index: Index, asked: Sequence[Asked], target: str = "image", k: int = 100) -> np.ndarray:
    """1 / rank of the right group of each query, 0 beyond k, as the index ranks now."""
    assert index.embedder is not None
    vectors = index.embedder.encode(batch_size=256, precision="float32", text=[one.text for one in asked])
    lists = index.search(vectors, k, target, modality="text")
    items = index.engine.select(keys=sorted({hit.key for hits in lists for hit in hits}))[1]
    groups = dict(zip(items["key"].to_pylist(), items["group"].to_pylist(), strict=True))
    found = []
    for one, hits in zip(asked, lists, strict=True):
        places = [place for place, hit in enumerate(hits, 1) if groups[hit.key] == one.group]
        found.append(1 / places[0] if places else 0.0)
    return np.array(found)
