"""The table that a run is refined on: judged queries with the rows that they should find, and a share of the old data.

1. ``chosen_pairs`` keeps what most judgements of a query say.
2. ``split_queries`` holds some queries out, to measure on.
3. ``with_negatives`` looks for rows that a query finds, but should not.
4. ``RefineTable`` is the table: a row of a judged query has the query as the value of its modality, and the other values of
   the row that was judged; a row that is replayed is one of the old training split.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from multimodal.core.embedder import Embedder
from multimodal.core.table import Table
from multimodal.data.samples import Samples
from multimodal.monitor.feedback_pairs import Queried, WeightedPair
from multimodal.monitor.hard_negatives import NONE, allowed_places, highest_allowed
from multimodal.search.index import Index
from multimodal.search.nearest import Search

AGREED = 0.5  # of a query's largest weight
LEAST = 0.5  # weight, half of a click: less is what the bound of a user or a query left of many
MARGIN = 0.95  # of the score of the right row, above which a hit may be right too
MINED = 30  # hits in which negatives are looked for
DRAWN = 5  # of which one is drawn
BATCH = 256


@dataclass(frozen=True)
class JudgedPair:
    """A query, and a row of the table that it should find.

    Attributes:
        modality: modality of the query.
        value: its value, a text.
        row: number of the row.
        target: modality of the judged hit; "": not known.
        weight: positive.
        negative: number of a row that the query finds, but should not. None: none is known.

    Examples:
        >>> JudgedPair("text", "a red cup", row=7, target="image", weight=2.0).negative is None
        True
    """

    modality: str
    value: str
    row: int
    target: str
    weight: float
    negative: int | None = None


def chosen_pairs(
    pairs: Sequence[WeightedPair], samples: Samples, embedder: Embedder
) -> tuple[list[JudgedPair], dict[tuple[str, str], set[str]]]:
    """Return the pairs that most judgements of their query agree on, and the keys that were judged wrong.

    Of each query, the groups that have at least half of the weight of its best one are kept: a wrong click among several right
    ones is left out. So is a pair of less weight than half a click, such as those of a flood, whose user is bounded. Queries
    must be one typed value of a modality of the model, and rows those of the table.

    Args:
        pairs: as ``weighted_pairs`` returns them.
        samples: the table.
        embedder: the model.

    Returns:
        The pairs; and (modality, value) of a query -> keys of negative weight.
    """
    typed = {m for m, processor in embedder.processors.items() if not processor.reads_files} & set(samples.modalities)
    rows = samples.rows_by_key
    of_query: dict[Queried, list[WeightedPair]] = defaultdict(list)
    for pair in pairs:
        if len(pair.query) == 1 and pair.query[0][0] in typed and pair.key in rows:
            of_query[pair.query].append(pair)
    chosen, wrong = [], {}
    for ((modality, value),), of in of_query.items():
        weights: dict[str, float] = defaultdict(float)
        for pair in of:
            weights[samples.group_of(rows[pair.key])] += pair.weight
        largest = max(weights.values())
        for pair in of:
            if pair.weight >= LEAST and weights[samples.group_of(rows[pair.key])] >= AGREED * largest:
                chosen.append(JudgedPair(modality, value, rows[pair.key], pair.modality, pair.weight))
        wrong[modality, value] = {pair.key for pair in of if pair.weight < 0}
    return chosen, wrong


def split_queries(pairs: Sequence[JudgedPair], fraction: float, seed: int) -> tuple[list[JudgedPair], list[JudgedPair]]:
    """Split pairs into those to train on and those to measure on, whole queries at a time, by a hash of the query.

    Args:
        pairs: the pairs.
        fraction: of the queries that are held out, in (0, 1).
        seed: of the hash.
    """

    def held_out(pair: JudgedPair) -> bool:
        digest = blake2b(f"{seed} {pair.modality} {pair.value.lower()}".encode(), digest_size=8).digest()
        return int.from_bytes(digest) < fraction * 2**64

    return [pair for pair in pairs if not held_out(pair)], [pair for pair in pairs if held_out(pair)]


def with_negatives(
    pairs: Sequence[JudgedPair],
    wrong: Mapping[tuple[str, str], set[str]],
    index: Index,
    samples: Samples,
    seed: int = 0,
) -> list[JudgedPair]:
    """Return the pairs with a row each that the query finds, but should not: one that people judged wrong, or a mined one.

    Of the first hits, those of a group that the query should find are left out, and those that score nearly as high as the
    right row, see ``hard_negatives.highest_allowed``: they may be right as well. One of the first five that are left is drawn.

    Args:
        pairs: the pairs.
        wrong: (modality, value) of a query -> keys that people judged wrong.
        index: the index, of the model that is refined.
        samples: the table, whose keys are those of the index.
        seed: of the draws.

    Returns:
        The same pairs; some without a negative.

    Source: Moreira et al. 2024, "NV-Retriever", section 4 (TopK-PercPos, with 95 %).
    """
    draws = np.random.default_rng(seed)
    groups = samples.group_numbers
    right: dict[tuple[str, str], set[int]] = defaultdict(set)
    for pair in pairs:
        right[pair.modality, pair.value].add(int(groups[pair.row]))
    queries = {(pair.modality, pair.value, pair.target): pair for pair in pairs}
    embedder = index.need_model()
    hits_of: dict[tuple[str, str, str], tuple[np.ndarray, np.ndarray]] = {}
    vectors_of: dict[tuple[str, str], np.ndarray] = {}
    for modality, target in sorted({(m, t) for m, _, t in queries}):
        values = [v for m, v, t in queries if (m, t) == (modality, target)]
        found = embedder.encode(batch_size=BATCH, precision="float32", **{modality: values})
        searched = target if target in index.modalities else None
        for value, vector, hits in zip(values, found, Search(MINED).hits(index.engine, found, searched), strict=True):
            vectors_of[modality, value] = vector
            rows = np.array([samples.rows_by_key.get(hit.key, NONE) for hit in hits], np.int64)
            hits_of[modality, value, target] = rows, np.array([hit.score for hit in hits])
    stored, items = index.engine.select(keys=sorted({samples.key_of(pair.row) for pair in pairs}))
    of_key: dict[str, list[np.ndarray]] = defaultdict(list)
    for vector, key in zip(stored, items["key"].to_pylist(), strict=True):
        of_key[key].append(vector)
    mined = []
    for pair in pairs:
        query = pair.modality, pair.value
        known = [samples.rows_by_key[key] for key in sorted(wrong.get(query, ())) if key in samples.rows_by_key]
        best = max((float(v @ vectors_of[query]) for v in of_key[samples.key_of(pair.row)]), default=1.0)
        candidates = [row for row in known if int(groups[row]) not in right[query]]
        if not candidates:
            rows, scores = hits_of[*query, pair.target]
            limit = float(highest_allowed(np.array(best), MARGIN))
            candidates = rows[allowed_places(rows, scores, groups, right[query], limit)[:DRAWN]].tolist()
        negative = int(draws.choice(candidates)) if candidates else None
        mined.append(JudgedPair(pair.modality, pair.value, pair.row, pair.target, pair.weight, negative))
    return mined


class RefineTable(Table):
    """Judged queries with their rows, drawn by their weights, and rows of the old training split.

    Its columns are the modalities, ``key``, ``group``, ``split`` ("train") and for hard negatives ``negative MODALITY``.

    Args:
        samples: the table that both are of.
        pairs: judged pairs to train on, at least one.
        replayed: row numbers of the old training split, from which rows are drawn.
        count: number of rows of judged pairs.
        replay: fraction of the rows that are replayed, in [0, 1).
        seed: of the draws.

    Examples:
        >>> samples = Samples.of([{"title": "a red cup", "about": "made of clay"}] * 2, {"text": "title", "more": "about"})
        >>> table = RefineTable(samples, [JudgedPair("text", "cup", 1, "more", 1.0)], np.array([0]), count=2, replay=0.5)
        >>> [table.value(row, "text") for row in range(len(table))], table.value(0, "more")
        (['cup', 'cup', 'a red cup', 'a red cup'], 'made of clay')
    """

    name = "judged queries and replayed rows"

    def __init__(
        self,
        samples: Samples,
        pairs: Sequence[JudgedPair],
        replayed: np.ndarray,
        *,
        count: int,
        replay: float,
        seed: int = 0,
    ) -> None:
        draws = np.random.default_rng(seed)
        self._samples, self.base = samples, samples.base
        weights = np.array([pair.weight for pair in pairs])
        # every pair once, as far as they go, then further draws
        drawn = draws.choice(len(pairs), count, p=weights / weights.sum())
        self._pairs = [*pairs, *(pairs[n] for n in drawn)][:count]
        extra = round(count * replay / (1 - replay))
        self._replayed = draws.choice(replayed, extra, replace=extra > len(replayed)) if len(replayed) else replayed
        self.negatives = {m: f"negative {m}" for m in samples.modalities if any(self._negative(p, m) for p in pairs)}
        self.columns = (*samples.modalities, "key", "group", "split", *self.negatives.values())
        self.metadata_columns = ()

    def _negative(self, pair: JudgedPair, modality: str) -> bool:
        return pair.negative is not None and modality != pair.modality and pair.target in ("", modality)

    def __len__(self) -> int:
        return len(self._pairs) + len(self._replayed)

    def value(self, row: int, column: str) -> Any:
        pair = self._pairs[row] if row < len(self._pairs) else None
        number = int(self._replayed[row - len(self._pairs)]) if pair is None else pair.row
        if column == "key":
            return f"{self._samples.key_of(number)} {row}"
        if column == "group":
            return self._samples.group_of(number)
        if column == "split":
            return "train"
        if column.startswith("negative "):
            modality = column.removeprefix("negative ")
            if pair is None or pair.negative is None or not self._negative(pair, modality):
                return None
            return self._value_of(pair.negative, modality)
        if pair is not None and column == pair.modality:
            return pair.value
        return self._value_of(number, column)

    def _value_of(self, row: int, modality: str) -> Any:
        columns = self._samples.schema.columns[modality]
        return next((v for column in columns if (v := self._samples.cell(row, column)) is not None), None)
