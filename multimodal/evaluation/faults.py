"""Suspected faults of data: wrong pairs, and one item under two names, as a table for a person to go through.

1. ``RowViews`` holds, for each modality, vectors of the rows by which neighbours are found;
2. ``suspect`` finds rows whose values do not go together (``pair_evidence``) and rows that are one item (``near_rows``);
3. ``Faults`` is the table, the strongest suspicion first; with ``approve`` filled in, training reads it (``data.approved``).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError, shown
from multimodal.data.approved import ACROSS_SPLITS, APPROVE, KEY, KIND, KINDS, MISMATCHED, OTHER_KEY, SAME_ITEM
from multimodal.evaluation.grid import Grid, number
from multimodal.evaluation.near_rows import near_rows
from multimodal.evaluation.pair_evidence import match_log_odds

LEAST_NEARNESS = 6.0  # strength of near rows that are reported: each is about e^3 = 20 times nearer than the next ones
UNRELATED = 0.95  # quantile of the cosines of rows drawn at random, which those of one item exceed
DRAWN = 1000  # rows whose cosines are drawn
BLOCK = 2**24  # scores in memory at a time
SHOWN = 10  # suspicions in a report


@dataclass(frozen=True)
class Suspicion:
    """One line of the table.

    Attributes:
        kind: see ``multimodal.data.approved.KINDS``.
        row, other_row: row numbers: the suspected row, and the one that its first value scores highest with (mismatched) or
            that shows the same item.
        pair: the modalities that were compared, "image-text" or "image-image".
        score: the model's score of the two rows, in [-1, 1].
        own_score: the model's score of the row's own values; NaN: it has only one.
        strength: mismatched: the log odds against the row's own pair; else: the logarithm of how much nearer the two are than
            their other neighbours.

    Examples:
        >>> Suspicion("mismatched", 7, 3, "image-text", 0.6, 0.1, 2.5).other_row
        3
    """

    kind: str
    row: int
    other_row: int
    pair: str
    score: float
    own_score: float
    strength: float


@dataclass(frozen=True)
class Faults:
    """Suspected faults, the strongest first of each kind.

    Attributes:
        suspicions: the lines.
        keys: row number -> key, of the rows that are named.
        contents: row number -> a readable line.
        notes: remarks for the reader.

    Examples:
        >>> faults = Faults([Suspicion("mismatched", 7, 3, "image-text", 0.6, 0.1, 2.5)], {7: "cup", 3: "jug"})
        >>> faults.grids()[1].rows
        [['mismatched', 'cup', 'image-text', 'jug', '0.600', '0.100', '2.500']]
    """

    suspicions: list[Suspicion]
    keys: Mapping[int, str] = field(default_factory=dict)
    contents: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def grids(self) -> list[Grid]:
        """Return the numbers of suspicions, and the strongest of them."""
        counts = [[kind, f"{sum(s.kind == kind for s in self.suspicions):,}"] for kind in KINDS]
        lines = [
            [s.kind, self._key(s.row), s.pair, self._key(s.other_row), *map(number, (s.score, s.own_score, s.strength))]
            for s in self.suspicions[:SHOWN]
        ]
        columns = [KIND, KEY, "pair", OTHER_KEY, "score", "own score", "strength"]
        found = [Grid("Suspected faults", [KIND, "suspicions"], counts)]
        return found + [Grid("The strongest suspicions", columns, lines)] * bool(lines)

    def save(self, path: str | Path) -> None:
        """Write the table as CSV; ``data.approved`` reads it after the column ``approve`` is filled in."""
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            columns = [
                KIND,
                KEY,
                "pair",
                OTHER_KEY,
                "score",
                "own score",
                "strength",
                "contents",
                "other contents",
                APPROVE,
            ]
            table.writerow(columns)
            for s in self.suspicions:
                numbers = [f"{value:.4f}" for value in (s.score, s.own_score, s.strength)]
                contents = [self.contents.get(row, "") for row in (s.row, s.other_row)]
                table.writerow([s.kind, self._key(s.row), s.pair, self._key(s.other_row), *numbers, *contents, ""])

    def _key(self, row: int) -> str:
        return self.keys.get(row, str(row))


@dataclass(frozen=True)
class RowViews:
    """Vectors of rows, one of a modality for each row that has it.

    Attributes:
        rows: modality -> ``(n_m,)`` int64 row numbers, ascending.
        vectors: modality -> ``(n_m, d)`` unit vectors.

    Examples:
        >>> two = Embeddings({"text": torch.eye(2)}, {"text": torch.tensor([0, 1])}, torch.tensor([0, 0]), ("7", "7"))
        >>> RowViews.of(two).rows["text"].tolist()  # two texts of one row
        [7]
    """

    rows: dict[str, Tensor]
    vectors: dict[str, Tensor]

    @classmethod
    def of(cls, embeddings: Embeddings) -> RowViews:
        """Average the vectors of alternative values of a row; those that are not finite are left out.

        Args:
            embeddings: keys are row numbers.
        """
        numbers = torch.tensor([int(key) for key in embeddings.keys], dtype=torch.int64)
        rows, vectors = {}, {}
        for modality, found in embeddings.vectors.items():
            finite = found.isfinite().all(dim=1)
            own = numbers[embeddings.rows[modality][finite].cpu()]
            rows[modality], place = own.unique(return_inverse=True)
            sums = torch.zeros(len(rows[modality]), found.shape[1])
            sums.index_add_(0, place, found[finite].float().cpu())
            vectors[modality] = torch.nn.functional.normalize(sums, dim=1)
        return cls(rows, vectors)

    def shared(self, a: str, b: str) -> tuple[Tensor, Tensor, Tensor]:
        """Return the rows that have two modalities, and their vectors of each."""
        both = torch.from_numpy(np.intersect1d(self.rows[a].numpy(), self.rows[b].numpy()))
        x, y = (self.vectors[m][torch.searchsorted(self.rows[m], both)] for m in (a, b))
        return both, x, y


def suspect(
    model: RowViews,
    views: RowViews,
    looks: RowViews,
    group_of: Mapping[int, int],
    split_of: Mapping[int, str] | None = None,
) -> tuple[list[Suspicion], list[str]]:
    """Find suspected faults.

    Args:
        model: the model's vectors, whose scores are shown.
        views: the vectors by which neighbours are found for wrong pairs, best such as were not trained on these pairs.
        looks: the vectors by which rows of one item are found.
        group_of: row number -> its group.
        split_of: row number -> its split.

    Returns:
        The suspicions, the strongest first, and why others could not be looked for.
    """
    found, notes = [], []
    for a, b in combinations(views.rows, 2):
        try:
            found += _mismatched(model, views, group_of, a, b)
        except UsageError as error:
            notes.append(f"{a}-{b}: {error}")
    found += _same_items(model, looks, group_of, split_of or {})
    return sorted(found, key=lambda s: -s.strength), notes


def _groups(rows: Tensor, group_of: Mapping[int, int]) -> Tensor:
    return torch.tensor([group_of[row] for row in rows.tolist()], dtype=torch.int64)


def _mismatched(model: RowViews, views: RowViews, group_of: Mapping[int, int], a: str, b: str) -> list[Suspicion]:
    rows, x, y = views.shared(a, b)
    odds = match_log_odds(x, y, _groups(rows, group_of))
    suspected = np.flatnonzero(odds < 0)
    known, u, v = model.shared(a, b)
    known_groups = _groups(known, group_of)
    place = {row: n for n, row in enumerate(known.tolist())}
    found = []
    for n in suspected.tolist():
        row = int(rows[n])
        own = place.get(row)
        if own is None:
            continue
        scores = v @ u[own]
        own_score = float(scores[own])
        scores[known_groups == known_groups[own]] = -torch.inf
        best = int(scores.argmax())
        found.append(
            Suspicion(MISMATCHED, row, int(known[best]), f"{a}-{b}", float(scores[best]), own_score, -float(odds[n]))
        )
    return found


def _same_items(
    model: RowViews, looks: RowViews, group_of: Mapping[int, int], split_of: Mapping[int, str]
) -> list[Suspicion]:
    strongest: dict[tuple[int, int], tuple[float, str]] = {}
    unrelated = {m: _unrelated(v) for m, v in looks.vectors.items()}
    place = {m: {row: n for n, row in enumerate(rows.tolist())} for m, rows in looks.rows.items()}

    def agrees(modality: str, i: int, j: int) -> bool:
        """Whether two rows are alike in a modality; where one does not have it, nothing speaks against it."""
        p, q = place[modality].get(i), place[modality].get(j)
        if p is None or q is None:
            return True
        vectors = looks.vectors[modality]
        return float(vectors[p] @ vectors[q]) > unrelated[modality]

    for modality, vectors in looks.vectors.items():
        rows = looks.rows[modality]
        pairs, strengths = near_rows(vectors, _groups(rows, group_of))
        for pair, strength in zip(rows[pairs].tolist(), strengths.tolist(), strict=True):
            if strength < LEAST_NEARNESS:
                break
            i, j = pair
            if strength > strongest.get((i, j), (0.0, ""))[0] and all(agrees(m, i, j) for m in looks.rows):
                strongest[i, j] = strength, modality
    own_scores = _own_scores(model)
    return [
        Suspicion(
            SAME_ITEM if split_of.get(i) == split_of.get(j) else ACROSS_SPLITS,
            i,
            j,
            f"{modality}-{modality}",
            _score(model, modality, i, j),
            own_scores.get(i, float("nan")),
            strength,
        )
        for (i, j), (strength, modality) in strongest.items()
    ]


def _unrelated(vectors: Tensor) -> float:
    """Return the cosine that rows drawn at random rarely exceed."""
    drawn = vectors[torch.from_numpy(np.random.default_rng(0).permutation(len(vectors))[:DRAWN])]
    if len(drawn) < 2:
        return 1.0
    above = torch.triu_indices(len(drawn), len(drawn), 1)
    return float(np.quantile((drawn @ drawn.T)[above[0], above[1]].numpy(), UNRELATED))


def _own_scores(model: RowViews) -> dict[int, float]:
    """Return the mean score, over pairs of modalities, of each row's own values."""
    scores: dict[int, list[float]] = {}
    for a, b in combinations(model.rows, 2):
        rows, x, y = model.shared(a, b)
        for row, score in zip(rows.tolist(), (x * y).sum(dim=1).tolist(), strict=True):
            scores.setdefault(row, []).append(score)
    return {row: sum(several) / len(several) for row, several in scores.items()}


def _score(model: RowViews, modality: str, i: int, j: int) -> float:
    rows = model.rows.get(modality, torch.zeros(0, dtype=torch.int64))
    at = torch.searchsorted(rows, torch.tensor([i, j]))
    if len(rows) == 0 or int(at.max()) >= len(rows) or rows[at].tolist() != [i, j]:
        return float("nan")
    return float(model.vectors[modality][at[0]] @ model.vectors[modality][at[1]])


def readable(values: Mapping[str, object]) -> str:
    """Return a row's values in one line; those that are not texts, numbers or a few of them by their kind.

    Args:
        values: modality -> the row's value.

    Examples:
        >>> readable({"text": "a cup", "tabular": {"size": 3.5, "colour": "red"}, "audio": b"RIFF"})
        'text: a cup; tabular: size 3.5, colour red; audio: bytes'
    """
    return "; ".join(f"{modality}: {_readable(value)}" for modality, value in values.items())


def _readable(value: object) -> str:
    if isinstance(value, Mapping) and value.get("path"):
        value = value["path"]
    if isinstance(value, Mapping) and all(isinstance(v, str | int | float | None) for v in value.values()):
        value = ", ".join(f"{name} {v}" for name, v in value.items() if v is not None)
    return shown(value) if isinstance(value, str | int | float) else type(value).__name__


def columns_of(suspicions: Sequence[Suspicion]) -> list[int]:
    """Return the rows that suspicions name, ascending."""
    return sorted({row for s in suspicions for row in (s.row, s.other_row)})
