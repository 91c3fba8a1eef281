"""What an evaluation found, of which reports are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from multimodal.core.conditions import describe_range
from multimodal.evaluation.evaluated import Evaluated
from multimodal.evaluation.intervals import Interval
from multimodal.evaluation.projection import Projection
from multimodal.evaluation.provenance import Cost
from multimodal.evaluation.retrieval import Retrieval
from multimodal.evaluation.sections import Section


@dataclass(frozen=True, repr=False)
class Results:
    """What an evaluation found; ``Report`` shows and saves it.

    Attributes:
        run: folder of the run or model.
        split: split of the queries.
        pool: split that was searched, or "all".
        seed: seed of the run; None: unknown.
        pairs: "text->image" -> the measures of that direction.
        baselines: name of a baseline -> its measures, like ``pairs``.
        train_split: split that the baselines were fitted on.
        rows: number of rows of the split; None: unknown.
        table_rows: number of rows of the table; None: unknown.
        notes: remarks for the reader, a line each: equal vectors in a pool, skipped pairs, rows that cannot be read.
        highest_recall_at_1: "text->image" -> the highest recall@1 that any model can have, as equal inputs (one drawing
            that is the letter A of three alphabets) tie.
        intervals: "text->image" -> measure -> its 95 % bootstrap interval over the groups of the queries.
        sections: name of a section that was asked for -> its result, see ``multimodal.evaluation.sections``.
        left_out: name of a section that a report has by default -> why these data do not have it.
        query_where, pool_where: column -> its values, or a range, by which rows of the splits were chosen.
        evaluated: the model, the vectors and the table, of which ``save`` shows examples. None: they are not kept.
        projection: how the map of the space is made, "pca" or "umap".
        cost: time and memory; None: unknown.

    Examples:
        >>> Results("runs/cups", "test", "all", seed=0, pairs={}).title
        "Retrieval in 'all', queries of 'test' (runs/cups)"
    """

    run: str
    split: str | list[str]
    pool: str | list[str]
    seed: int | None
    pairs: Mapping[str, Retrieval]
    baselines: Mapping[str, Mapping[str, Retrieval]] = field(default_factory=dict)
    train_split: str | list[str] = "train"
    rows: int | None = None
    table_rows: int | None = None
    notes: tuple[str, ...] = ()
    highest_recall_at_1: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    sections: Mapping[str, Section] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    query_where: Mapping[str, Any] = field(default_factory=dict)
    pool_where: Mapping[str, Any] = field(default_factory=dict)
    evaluated: Evaluated | None = field(default=None, compare=False)
    projection: Projection = "pca"
    cost: Cost | None = field(default=None, compare=False)

    @property
    def title(self) -> str:
        """Title of the table and the chart, with the splits, the run and how many rows of the table were evaluated."""
        queries, pool = (
            f"{split!r}{_conditions(where)}"
            for split, where in ((self.split, self.query_where), (self.pool, self.pool_where))
        )
        place = queries if queries == pool else f"{pool}, queries of {queries}"
        counts = "" if self.rows is None else f": {self.rows:,} of {self.table_rows:,} rows"
        return f"Retrieval in {place} ({self.run}){counts}"


def _conditions(where: Mapping[str, Any]) -> str:
    """Write the conditions on rows, as in " where set = a, colour = red or blue, price >= 5 and < 20"."""
    texts = (
        f"{name} {describe_range(wanted)}" if isinstance(wanted, Mapping) else f"{name} = {' or '.join(wanted)}"
        for name, wanted in where.items()
    )
    return f" where {', '.join(texts)}" if where else ""
