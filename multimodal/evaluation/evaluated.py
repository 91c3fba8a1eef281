"""What the sections of an evaluation measure: the vectors of queries and pool, their rows, and training rows to fit on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from multimodal.core.conditions import Range, comparable, describe_range, nothing_to_compare
from multimodal.core.embedder import Embedder
from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError, suggest
from multimodal.core.progress import progress
from multimodal.core.rejects import Rejects
from multimodal.data.loaders import loader_in_order
from multimodal.data.samples import Samples
from multimodal.evaluation.fused import with_fused
from multimodal.evaluation.look_alikes import DigestedSamples
from multimodal.evaluation.retrieval import QueryMeasures

BATCH = 256  # rows embedded at a time; affects the speed, not the results
MOST_TRAINING_ROWS = 10_000  # that are embedded, to fit classifiers on
ROWS_FOR_MEANS = 2_000  # where nothing else is fitted


@dataclass(frozen=True)
class RowVectors:
    """The vectors of rows.

    Attributes:
        samples: the rows' table.
        embeddings: the vectors; their keys are row numbers of the samples.
        digests: modality -> a digest of the input of each vector, by which equal inputs are found.

    Examples:
        >>> import torch
        >>> samples, rows = Samples.of([{"title": "cup", "set": "a"}], {"text": "title"}), torch.arange(1)
        >>> RowVectors(samples, Embeddings({"text": torch.eye(1)}, {"text": rows}, rows, keys=("0",)), {}).texts("set")
        ['a']
    """

    samples: Samples
    embeddings: Embeddings
    digests: Mapping[str, list[bytes]]

    def texts(self, column: str) -> list[str | None]:
        """Return the cells of a column as text, one for each row of the embeddings.

        Raises:
            UsageError: the table has no such column.
        """
        return self.samples.texts(column, map(int, self.embeddings.keys))


@dataclass
class Evaluated:
    """An evaluation whose vectors are computed.

    Attributes:
        embedder: the model.
        queries, pool: what is searched for, and what is searched.
        by_query: "text->image" -> the measures of the queries of that direction.
        training: samples and row numbers that the model was trained on, none of which is measured. None: there are none.
        settings: the split, and arguments of single sections: ``label``, ``templates``, ``slices``, ...
        notes: remarks for the reader, to which sections add.
        weights: modality -> its weight, of the modalities that are also searched for as one. None: none are.

    Examples:
        >>> from multimodal import create
        >>> samples = Samples.of([{"title": "red cup"}, {"title": "hat"}], {"text": "title"})
        >>> embedder = Embedder({"text": create("text", "bag")}, dim=4)
        >>> embedder.fit_processors({"text": ["red cup", "hat"]})
        >>> vectors = embed_rows(embedder, samples, np.arange(2), Rejects(0.0, rows=2))
        >>> Evaluated(embedder, vectors, vectors, {}).modalities
        ['text']
    """

    embedder: Embedder
    queries: RowVectors
    pool: RowVectors
    by_query: Mapping[str, QueryMeasures]
    training: tuple[Samples, np.ndarray] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    weights: Mapping[str, float] | None = None

    @cached_property
    def searched_for(self) -> Embeddings:
        """The vectors of the queries, and the fused ones if there are such."""
        return self.queries.embeddings if self.weights is None else with_fused(self.queries.embeddings, self.weights)

    @property
    def modalities(self) -> list[str]:
        return self.queries.embeddings.modalities

    @cached_property
    def training_vectors(self) -> RowVectors | None:
        """The vectors of training rows, drawn at random; None: there are none."""
        if self.training is None:
            return None
        most = MOST_TRAINING_ROWS if self.settings.get("label") else ROWS_FOR_MEANS
        return embed_training_rows(self.embedder, *self.training, most)


def embed_rows(
    embedder: Embedder, samples: Samples, rows: np.ndarray, rejects: Rejects, title: str = "Embedding"
) -> RowVectors:
    """Embed rows, of the modalities that both the model and the table have.

    Args:
        embedder: the model.
        samples: the table.
        rows: ``(r,)`` row numbers.
        rejects: records the rows that cannot be read.
        title: title of the progress bar.
    """
    processors = {m: embedder.processors[m] for m in embedder.modalities if m in samples.modalities}
    data = DigestedSamples(samples.keyed_by_number(), processors)
    with progress(title, len(rows)) as advance:
        embeddings = embedder.embed_all(loader_in_order(data, rows, BATCH, rejects), advance)
    return RowVectors(samples, embeddings, data.digests)


def embed_training_rows(
    embedder: Embedder, samples: Samples, rows: np.ndarray, most: int = MOST_TRAINING_ROWS
) -> RowVectors:
    """Embed rows that the model was trained on, to fit something on them; of too many rows some are drawn at random.

    Args:
        embedder: the model.
        samples: the table.
        rows: ``(r,)`` row numbers.
        most: number of rows to embed.
    """
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
    rejects = Rejects(1.0, len(rows))  # training counted and reported them
    return embed_rows(embedder, samples, rows, rejects, "Embedding training rows")


def rows_where(samples: Samples, rows: np.ndarray, conditions: Mapping[str, Any]) -> np.ndarray:
    """Return the rows that have, in each named column, the value or one of the values that are given, or one in a range.

    Args:
        samples: the table.
        rows: ``(r,)`` row numbers.
        conditions: column -> its value, several, or a range, see ``multimodal.core.conditions``.

    Raises:
        UsageError: the table has no such column, a range is wrong, or no row is left.

    Examples:
        >>> shop = Samples.of([{"title": "cup", "set": "a"}, {"title": "hat", "set": "b"}], {"text": "title"})
        >>> rows_where(shop, np.arange(2), {"set": "b"}).tolist()
        [1]
        >>> shop = Samples.of([{"title": "cup", "price": 5}, {"title": "hat", "price": 20}], {"text": "title"})
        >>> rows_where(shop, np.arange(2), {"price": {"lt": 20}}).tolist()
        [0]
    """
    for column, wanted in conditions.items():
        if isinstance(wanted, Mapping):
            rows = _rows_within(samples, rows, column, wanted)
            continue
        values = {wanted} if isinstance(wanted, str) else {str(value) for value in wanted}
        cells = samples.texts(column, rows.tolist())
        kept = rows[[cell in values for cell in cells]]
        if not len(kept):
            known = sorted({cell for cell in cells if cell is not None})
            example = suggest(next(iter(values)), known) if len(known) <= 100 else ""
            raise UsageError(f"No row has {column} = {' or '.join(sorted(values))}.{example}")
        rows = kept
    return rows


def _rows_within(samples: Samples, rows: np.ndarray, column: str, wanted: Mapping[str, Any]) -> np.ndarray:
    within = Range.of(column, wanted)
    found = [comparable(cell) for cell in samples.texts(column, rows.tolist())]
    values = [None if one is None or one[0] != within.kind else one[1] for one in found]
    if all(value is None for value in values):
        raise nothing_to_compare(column, within.kind, {one[0] for one in found if one is not None})
    kept = rows[[within.holds(value) for value in values]]
    if not len(kept):
        raise UsageError(f"No row has {column} {describe_range(wanted)}.")
    return kept
