"""Robustness: retrieval with corrupted queries, next to that with the queries as they are.

Each modality is corrupted alone, by each corruption that its processor names (``Processor.corruptions``), and searches the
same pool: what a misspelled name or a blurred picture still finds among proper ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from multimodal.core.batch import Sample, stable_hash
from multimodal.core.embedder import Embedder
from multimodal.core.embeddings import Embeddings
from multimodal.core.encoder import Corruption, Inputs, Processor
from multimodal.core.rejects import Reject, Rejects
from multimodal.data.loaders import ProcessedSamples, loader_in_order
from multimodal.data.samplers import Draw
from multimodal.data.samples import Samples
from multimodal.evaluation.grid import Grid, number
from multimodal.evaluation.retrieval import Retrieval, measure_queries

BATCH = 256  # rows embedded at a time
MOST_ROWS = 1_000  # queries of a modality: each corruption encodes them once
UNCORRUPTED = "none"

Pairs = Mapping[str, Retrieval]


@dataclass(frozen=True)
class Robustness:
    """Retrieval with corrupted queries.

    Attributes:
        uncorrupted: "text->image" -> the measures of the same rows' queries without a corruption.
        corrupted: modality of the queries -> corruption -> "text->image" -> the measures.
        unreadable: modality -> corruption -> how many queries its processor could not read after it; they are left out.
        notes: what was left out.

    Examples:
        >>> from multimodal import create
        >>> rows = [{"title": f"a {colour} cup", "note": f"cup, {colour}"} for colour in ("red", "blue", "green")]
        >>> samples = Samples.of(rows, {"text": "title", "note": "note"})
        >>> bag = create("text", "bag")
        >>> embedder = Embedder({"text": bag, "note": bag}, dim=8)
        >>> embedder.fit_processors({"text": [row["title"] for row in rows], "note": [row["note"] for row in rows]})
        >>> found = Robustness.of(embedder, samples, np.arange(3))
        >>> list(found.corrupted["text"])
        ['dropped words', 'misspelled words', 'words in another order', 'upper case']
        >>> found.corrupted["text"]["words in another order"]["text->note"].queries
        3
    """

    uncorrupted: Pairs
    corrupted: Mapping[str, Mapping[str, Pairs]]
    unreadable: Mapping[str, Mapping[str, int]]
    notes: tuple[str, ...] = field(default=())

    @classmethod
    def of(
        cls,
        embedder: Embedder,
        samples: Samples,
        rows: np.ndarray,
        pool: Embeddings | None = None,
        *,
        seed: int = 0,
        most_rows: int = MOST_ROWS,
        advance: Callable[[int], object] | None = None,
    ) -> Robustness:
        """Measure the retrieval with queries of some rows, corrupted and not.

        Args:
            embedder: the model.
            samples: the samples.
            rows: ``(r,)`` the rows whose values are the queries.
            pool: the vectors to search, with the groups of ``Batch.collate``. None: those of ``rows``.
            seed: seed of the corruptions, which also depend on the row and on the corruption's name.
            most_rows: of more rows, this many are drawn at random for the queries.
            advance: called with the number of rows of each finished batch.
        """
        processors = {m: embedder.processors[m] for m in embedder.modalities if m in samples.modalities}
        if pool is None:
            pool = _embed(embedder, ProcessedSamples(samples, processors), rows, advance)
        if len(rows) > most_rows:
            rows = np.sort(np.random.default_rng(seed).choice(rows, most_rows, replace=False))
        uncorrupted: dict[str, Retrieval] = {}
        corrupted: dict[str, dict[str, Pairs]] = {}
        unreadable: dict[str, dict[str, int]] = {}
        notes = []
        for modality, processor in processors.items():
            corruptions = processor.corruptions()
            if not corruptions:
                notes.append(f"{type(processor).__name__}, of {modality}, names no corruptions.")
                continue
            queries = _embed(embedder, ProcessedSamples(samples, {modality: processor}), rows, advance)
            pairs = _search(modality, queries, pool)
            if not pairs:
                notes.append(f"No {modality} has a right answer of another modality in the pool.")
                continue
            uncorrupted |= pairs
            readable = len(queries.vectors[modality])
            for name, corruption in corruptions.items():
                data = CorruptedSamples(samples, modality, processor, name, corruption, seed)
                queries = _embed(embedder, data, rows, advance)
                corrupted.setdefault(modality, {})[name] = _search(modality, queries, pool)
                left = len(queries.vectors[modality]) if modality in queries.vectors else 0
                unreadable.setdefault(modality, {})[name] = readable - left
        return cls(uncorrupted, corrupted, unreadable, tuple(notes))

    def grids(self) -> list[Grid]:
        """Return the tables of a report: one for each modality that was corrupted."""
        return [self._grid(modality, found) for modality, found in self.corrupted.items()]

    def _grid(self, modality: str, found: Mapping[str, Pairs]) -> Grid:
        pairs = [pair for pair in self.uncorrupted if pair.startswith(f"{modality}->")]
        columns = ["corruption", *(c for p in pairs for c in (f"R@1 -> {p.partition('->')[2]}", "MRR")), "unreadable"]
        rows = [[UNCORRUPTED, *_cells(self.uncorrupted, pairs), "0"]]
        rows += [[name, *_cells(of, pairs), f"{self.unreadable[modality][name]:,}"] for name, of in found.items()]
        return Grid(f"Queries of {modality}, corrupted", columns, rows)


class CorruptedSamples(ProcessedSamples):
    """Data set of one modality's items, whose raw values are corrupted before they are processed.

    Args:
        samples: the rows.
        modality: the modality.
        processor: its processor.
        name: the name of the corruption, on which its random numbers depend.
        corruption: the corruption.
        seed: seed of the random numbers.

    Examples:
        >>> from multimodal import create
        >>> encoder = create("text", "bag")
        >>> encoder.fit(["a cup", "CUP"])
        >>> samples = Samples.of([{"title": "a cup"}], {"text": "title"})
        >>> data = CorruptedSamples(samples, "text", encoder.processor, "cup", lambda value, rng: "cup", seed=0)
        >>> len(data[Draw(0)][0].values["text"])  # of one word
        1
    """

    def __init__(
        self, samples: Samples, modality: str, processor: Processor, name: str, corruption: Corruption, seed: int
    ) -> None:
        self._corrupting = _Corrupting(processor, corruption)
        super().__init__(samples, {modality: self._corrupting})
        self._seed = (seed, stable_hash(name))

    def __getitem__(self, draw: Draw) -> list[Sample | Reject]:
        self._corrupting.rng = np.random.default_rng((*self._seed, draw.row))
        return super().__getitem__(draw)


class _Corrupting(Processor):
    """A processor that corrupts raw values first."""

    def __init__(self, processor: Processor, corruption: Corruption) -> None:
        self._processor, self._corruption = processor, corruption
        self.reads_files = processor.reads_files
        self.rng = np.random.default_rng(0)

    def __call__(self, value: Any) -> Any:
        return self._processor(self._corruption(value, self.rng))

    def collate(self, items: Sequence[Any]) -> Inputs:
        return self._processor.collate(items)


def _embed(
    embedder: Embedder, data: ProcessedSamples, rows: np.ndarray, advance: Callable[[int], object] | None
) -> Embeddings:
    rejects = Rejects(1.0, len(rows))  # those of the rows themselves are reported by the evaluation
    return embedder.embed_all(loader_in_order(data, rows, BATCH, rejects), advance)


def _search(modality: str, queries: Embeddings, pool: Embeddings) -> dict[str, Retrieval]:
    """Return the measures of the queries of a modality in each other modality of the pool."""
    found = {}
    for other, candidates in pool.vectors.items():
        if other == modality or modality not in queries.vectors:
            continue
        vectors: Tensor = queries.vectors[modality]
        by_query = measure_queries(vectors, candidates, queries.groups_of(modality), pool.groups_of(other))
        if len(by_query.queries):
            found[f"{modality}->{other}"] = Retrieval.of(by_query, len(candidates))
    return found


def _cells(found: Pairs, pairs: Sequence[str]) -> list[str]:
    cells = []
    for pair in pairs:
        of = found.get(pair)
        cells += ["-", "-"] if of is None else [f"{100 * of.recall_at_1:.1f}", number(of.mrr)]
    return cells
