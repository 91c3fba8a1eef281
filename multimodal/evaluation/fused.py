"""Fused queries and candidates: one vector of several modalities of a row, and what each of them adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError, suggest
from multimodal.evaluation.figure import Figure, line_chart
from multimodal.evaluation.grid import Grid, number
from multimodal.evaluation.retrieval import QueryMeasures, Retrieval, measure_queries

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the modalities of a row that are missing
MOST_MODALITIES = 5  # of which all subsets are measured


def fused_name(modalities: Sequence[str]) -> str:
    """Return the name of a fusion, as in "text+image->graph"."""
    return "+".join(modalities)


def parse_fusion(text: str) -> dict[str, float]:
    """Return the weights of a fusion that is written as "text+image" or "text=0.7+image=0.3".

    Raises:
        UsageError: it does not name two modalities, or a weight is not a positive number.

    Examples:
        >>> parse_fusion("text=0.7+image=0.3")
        {'text': 0.7, 'image': 0.3}
    """
    weights = {}
    for part in text.split("+"):
        name, _, weight = part.partition("=")
        try:
            weights[name.strip()] = float(weight or 1)
        except ValueError:
            raise UsageError(f"{weight!r} in {text!r} is not a weight, which is a number like 0.7.") from None
    check_fusion(weights)
    return weights


def check_fusion(weights: Mapping[str, float], modalities: Sequence[str] | None = None) -> None:
    """Check the weights of a fusion.

    Args:
        weights: modality -> its weight.
        modalities: the modalities that there are; None: they are not checked.

    Raises:
        UsageError: they are fewer than two, unknown, or not positive numbers.
    """
    if len(weights) < 2:
        raise UsageError(f"A fusion has at least two modalities, like text+image; got {'+'.join(weights) or 'none'}.")
    for name, weight in weights.items():
        if not 0 < weight < float("inf"):
            raise UsageError(f"The weight of {name} in a fusion must be a positive number, got {weight}.")
        if modalities is not None and name not in modalities:
            raise UsageError(f"There is no modality {name!r} to fuse.{suggest(name, list(modalities))}")


def fuse(embeddings: Embeddings, weights: Mapping[str, float]) -> tuple[Tensor, Tensor]:
    """Return the fused vectors of the rows that have all the modalities: the weighted sum, at unit length.

    Args:
        embeddings: unit vectors.
        weights: modality -> its weight.

    Returns:
        ``(n, dim)`` float32 vectors and ``(n,)`` int64 rows, ascending.

    Examples:
        >>> rows = torch.arange(2)
        >>> embeddings = Embeddings({"a": torch.eye(2), "b": torch.eye(2)[[1]]}, {"a": rows, "b": rows[:1]}, groups=rows)
        >>> vectors, of_rows = fuse(embeddings, {"a": 3.0, "b": 4.0})
        >>> [round(x, 6) for x in vectors[0].tolist()], of_rows.tolist()  # row 1 has no b
        ([0.6, 0.8], [0])
    """
    check_fusion(weights, embeddings.modalities)
    by_row, present = vectors_by_row(embeddings, list(weights))
    rows = present.all(dim=0).nonzero().flatten()
    of_weights = torch.tensor(list(weights.values()), device=by_row.device)
    return functional.normalize((by_row[:, rows] * of_weights[:, None, None]).sum(dim=0), dim=1), rows


def with_fused(embeddings: Embeddings, weights: Mapping[str, float]) -> Embeddings:
    """Return the embeddings with the fused vectors as one more modality, "text+image".

    Args:
        embeddings: unit vectors.
        weights: modality -> its weight.
    """
    vectors, rows = fuse(embeddings, weights)
    name = fused_name(list(weights))
    return replace(embeddings, vectors={**embeddings.vectors, name: vectors}, rows={**embeddings.rows, name: rows})


def vectors_by_row(embeddings: Embeddings, modalities: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return the vectors in the order of the rows.

    Args:
        embeddings: their vectors; of several vectors of a row, the last.
        modalities: m of them.

    Returns:
        ``(m, n, dim)`` float32, zeros where a row has none, and ``(m, n)`` bool, which have one.
    """
    n, dim = len(embeddings.groups), embeddings.vectors[modalities[0]].shape[1]
    device = embeddings.groups.device
    by_row = torch.zeros(len(modalities), n, dim, device=device)
    present = torch.zeros(len(modalities), n, dtype=torch.bool, device=device)
    for number_, modality in enumerate(modalities):
        by_row[number_, embeddings.rows[modality]] = embeddings.vectors[modality].float()
        present[number_, embeddings.rows[modality]] = True
    return by_row, present


@dataclass(frozen=True)
class MissingModalities:
    """What each modality adds to a fused query, and how retrieval fares where some of them are missing.

    Only rows that have all the fused modalities are queries or candidates, so that all figures are of the same ones.

    Attributes:
        queries: "text+image->graph", for each subset of the other modalities -> retrieval by the fusion of equal weights.
        missing_of_queries: "text+image->graph" -> share of the queries' modalities that is missing -> retrieval. Each is
            dropped at random, but one of each row is kept.
        missing_of_candidates: "graph->text+image" -> the same where those of the candidates are missing.

    Examples:
        >>> rows = torch.arange(2)
        >>> vectors = {m: torch.eye(2) for m in ("text", "image", "graph")}
        >>> found = MissingModalities.of(Embeddings(vectors, dict.fromkeys(vectors, rows), groups=rows))
        >>> found.queries["text+image->graph"].recall_at_1
        1.0
    """

    queries: Mapping[str, Retrieval]
    missing_of_queries: Mapping[str, Mapping[float, Retrieval]]
    missing_of_candidates: Mapping[str, Mapping[float, Retrieval]]

    @classmethod
    def of(cls, queries: Embeddings, candidates: Embeddings | None = None, seed: int = 0) -> MissingModalities:
        """Measure all fusions of the modalities other than the searched one.

        Args:
            queries: embeddings to search for, of at least three modalities.
            candidates: embeddings to search in; None: the queries.
            seed: decides what is dropped.

        Raises:
            UsageError: there are fewer than three modalities, so nothing to fuse, or more than 6.
        """
        candidates = queries if candidates is None else candidates
        known = [m for m in queries.modalities if m in candidates.vectors]
        if not 3 <= len(known) <= MOST_MODALITIES + 1:
            raise UsageError(
                f"Fusions are measured for 3 to {MOST_MODALITIES + 1} modalities, as one of them is searched; there are"
                f" {len(known)}."
            )
        by_subset: dict[str, Retrieval] = {}
        of_queries: dict[str, dict[float, Retrieval]] = {}
        of_candidates: dict[str, dict[float, Retrieval]] = {}
        for target in known:
            others = [m for m in known if m != target]
            by_row, present = vectors_by_row(queries, others)
            rows = present.all(dim=0).nonzero().flatten()
            pool, pool_groups = candidates.vectors[target], candidates.groups_of(target)
            for size in range(1, len(others) + 1):
                for subset in combinations(range(len(others)), size):
                    fused = functional.normalize(by_row[list(subset)][:, rows].sum(dim=0), dim=1)
                    found = measure_queries(fused, pool, queries.groups[rows], pool_groups)
                    _add(by_subset, f"{fused_name([others[i] for i in subset])}->{target}", found, len(pool))
            if not len(rows):
                continue
            name = f"{fused_name(others)}->{target}"
            for share in SHARES:
                fused = _drop(by_row[:, rows], share, seed)
                found = measure_queries(fused, pool, queries.groups[rows], pool_groups)
                _add(of_queries.setdefault(name, {}), share, found, len(pool))
            by_row, present = vectors_by_row(candidates, others)
            rows = present.all(dim=0).nonzero().flatten()
            name = f"{target}->{fused_name(others)}"
            for share in SHARES:
                fused = _drop(by_row[:, rows], share, seed)
                found = measure_queries(
                    queries.vectors[target], fused, queries.groups_of(target), candidates.groups[rows]
                )
                _add(of_candidates.setdefault(name, {}), share, found, len(fused))
        return cls(by_subset, *({n: r for n, r in found.items() if r} for found in (of_queries, of_candidates)))

    def grids(self) -> list[Grid]:
        """Return the tables of a report; those without a row are left out."""
        subsets = [
            [
                pair.replace("->", " -> "),
                *(f"{100 * recall:.1f}" for recall in (r.recall_at_1, r.recall_at_10)),
                number(r.mrr),
                f"{r.queries:,}",
            ]
            for pair, r in self.queries.items()
        ]
        grids = [Grid("What a modality adds to a query", ["query -> found", "R@1", "R@10", "MRR", "queries"], subsets)]
        for title, found in (
            ("R@1 by the share of the query's modalities that is missing", self.missing_of_queries),
            ("R@1 by the share of the candidates' modalities that is missing", self.missing_of_candidates),
        ):
            rows = [
                [pair.replace("->", " -> "), *(f"{100 * curve[s].recall_at_1:.1f}" if s in curve else "-" for s in SHARES)]
                for pair, curve in found.items()
            ]  # fmt: skip
            grids.append(Grid(title, ["query -> found", *(f"{100 * share:.0f} %" for share in SHARES)], rows))
        return [grid for grid in grids if grid.rows]

    def figures(self) -> list[Figure]:
        """Return the curves of recall@1 over the share that is missing."""
        return [
            Figure(
                title,
                line_chart(
                    {
                        pair.replace("->", " → "): [(100 * share, r.recall_at_1) for share, r in sorted(curve.items())]
                        for pair, curve in found.items()
                    },
                    "per cent of the modalities that is missing",
                    y_range=(0, 1),
                    per_cent=True,
                ),
            )
            for title, found in (
                ("R@1, modalities of the query missing", self.missing_of_queries),
                ("R@1, modalities of the candidates missing", self.missing_of_candidates),
            )
            if found
        ]


def _add(found: dict, name: str | float, by_query: QueryMeasures, pool: int) -> None:
    if len(by_query.queries):
        found[name] = Retrieval.of(by_query, pool)


def _drop(by_row: Tensor, share: float, seed: int) -> Tensor:
    """Return the fusion of vectors ``(m, n, dim)`` of which each is dropped with a probability, but not all of a row."""
    draws = torch.rand(by_row.shape[:2], generator=torch.Generator().manual_seed(seed)).to(by_row.device)
    kept = draws >= share
    kept |= draws == draws.amax(dim=0)  # one of each row
    return functional.normalize((by_row * kept[:, :, None]).sum(dim=0), dim=1)
