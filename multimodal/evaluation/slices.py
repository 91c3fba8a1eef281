"""Retrieval by slices: the measures of the queries that share a value of a column, such as one category or one font."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.evaluation.grid import Grid
from multimodal.evaluation.intervals import Interval, bootstrap
from multimodal.evaluation.retrieval import QueryMeasures

MOST_SLICES = 20  # values of a column that are shown; the others are counted
MEASURES = ("recall@1", "recall@10", "mrr")


@dataclass(frozen=True)
class Slice:
    """The queries of one value, in one direction.

    Attributes:
        queries: their number.
        measures: name -> mean and interval.
    """

    queries: int
    measures: Mapping[str, Interval]


@dataclass(frozen=True)
class Slices:
    """Retrieval by the values of a column.

    Attributes:
        column: the column.
        slices: value -> "text->image" -> its queries, by decreasing number of rows.
        left_out: number of further, rarer values.
        missing: number of rows without a value, which are in no slice.

    Examples:
        >>> import torch
        >>> from multimodal.evaluation.retrieval import retrieval_by_query
        >>> rows = torch.arange(3)
        >>> vectors = {"text": torch.eye(3), "image": torch.eye(3)[[0, 2, 1]]}
        >>> cups = Embeddings(vectors, {"text": rows, "image": rows}, groups=rows)
        >>> found = Slices.of("colour", ["red", "blue", "blue"], cups, retrieval_by_query(cups))
        >>> found.slices["red"]["text->image"].measures["recall@1"].mean
        1.0
    """

    column: str
    slices: Mapping[str, Mapping[str, Slice]]
    left_out: int
    missing: int

    @classmethod
    def of(
        cls,
        column: str,
        values: Sequence[str | None],
        queries: Embeddings,
        by_query: Mapping[str, QueryMeasures],
    ) -> Slices:
        """Divide the queries by the values of their rows; the pool is the same for all.

        Args:
            column: name of the column.
            values: the value of each row of the queries; None: missing.
            queries: the embeddings that were searched for.
            by_query: "text->image" -> the measures of the queries.

        Raises:
            UsageError: no row has a value.
        """
        counts = Counter(value for value in values if value is not None)
        if not counts:
            raise UsageError(f"No evaluated row has a value of {column!r}, so there are no slices.")
        shown = [value for value, _ in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:MOST_SLICES]]
        of_rows = np.array([shown.index(v) if v in shown else -1 for v in values])
        slices: dict[str, dict[str, Slice]] = {value: {} for value in shown}
        for pair, found in by_query.items():
            rows = queries.rows[pair.partition("->")[0]][found.queries].cpu().numpy()
            groups = queries.groups.cpu().numpy()[rows]
            for number, value in enumerate(shown):
                chosen = of_rows[rows] == number
                if chosen.any():
                    of_slice = {name: found.values[name].cpu().numpy()[chosen] for name in MEASURES}
                    slices[value][pair] = Slice(int(chosen.sum()), bootstrap(of_slice, groups[chosen]))
        return cls(column, slices, len(counts) - len(shown), sum(value is None for value in values))

    def grids(self) -> list[Grid]:
        """Return a table for each direction."""
        pairs = dict.fromkeys(pair for of_value in self.slices.values() for pair in of_value)
        left_out = f"; {self.left_out:,} rarer values are left out" if self.left_out else ""
        grids = []
        for pair in pairs:
            rows = []
            for value, of_value in self.slices.items():
                if (found := of_value.get(pair)) is not None:
                    at_1, at_10, mrr = (found.measures[name] for name in MEASURES)
                    between = f"{100 * at_1.low:.1f} to {100 * at_1.high:.1f}"
                    recalls = f"{100 * at_1.mean:.1f}", between, f"{100 * at_10.mean:.1f}"
                    rows.append([value, *recalls, f"{mrr.mean:.3f}", f"{found.queries:,}"])
            title = f"{pair.replace('->', ' -> ')} by {self.column}{left_out}"
            grids.append(Grid(title, [self.column, "R@1", "95 % interval", "R@10", "MRR", "queries"], rows))
        return grids
