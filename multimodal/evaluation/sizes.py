"""How small vectors may be: retrieval by prefixes, by int8 and by single bits, with and without rescoring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from statistics import fmean
from time import perf_counter

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.evaluation.figure import Figure, line_chart
from multimodal.evaluation.grid import Grid
from multimodal.evaluation.ranking import TIE_TOLERANCE
from multimodal.evaluation.retrieval import measure_queries

SMALLEST = 8  # dimensions
RESCORED = 40  # candidates of a search with rescoring: four times the ten that are looked at
MOST_QUERIES, MOST_CANDIDATES = 2_000, 50_000  # of a direction, so that it is quick


@dataclass(frozen=True)
class SizePoint:
    """Retrieval by vectors of one kind, averaged over all ordered pairs of modalities.

    Attributes:
        stored: "float32", "int8" or "binary".
        dim: number of components, the first ones of the vectors.
        rescored: whether the first 40 candidates were ordered again by the whole vectors, which are kept elsewhere.
        bytes: of a vector in the index that is searched.
        recall_at_1, recall_at_10: as in ``retrieval.Retrieval``.
        milliseconds: to search the pool with one query, on one thread; by products of matrices, and counts of bits.
    """

    stored: str
    dim: int
    rescored: bool
    bytes: int
    recall_at_1: float
    recall_at_10: float
    milliseconds: float


@dataclass(frozen=True)
class Sizes:
    """The curve of sizes.

    Attributes:
        points: from the largest vectors to the smallest.
        pool: mean number of candidates.

    Examples:
        >>> rows = torch.arange(2)
        >>> vectors = {m: functional.normalize(torch.tensor([[1.0, 2.0], [2.0, -1.0]])) for m in ("text", "image")}
        >>> sizes = Sizes.of(Embeddings(vectors, {"text": rows, "image": rows}, groups=rows))
        >>> [(p.stored, p.rescored, p.bytes, p.recall_at_1) for p in sizes.points]
        [('float32', False, 8, 1.0), ('int8', False, 2, 1.0), ('binary', False, 1, 1.0), ('binary', True, 1, 1.0)]
    """

    points: Sequence[SizePoint]
    pool: float

    @classmethod
    def of(cls, queries: Embeddings, candidates: Embeddings | None = None) -> Sizes:
        """Measure prefixes of half the length each, down to 8, and int8 and binary vectors of all of them.

        Args:
            queries: embeddings to search for; at most 2,000 of a modality are used.
            candidates: embeddings to search in; None: the queries. At most 50,000 of a modality are used.

        Raises:
            UsageError: no query has a right answer.
        """
        candidates = queries if candidates is None else candidates
        pairs = [
            _Direction.of(queries, candidates, a, b)
            for a, b in permutations(queries.modalities, 2)
            if b in candidates.vectors
        ]
        pairs = [pair for pair in pairs if len(pair.queries)]
        if not pairs:
            raise UsageError("No query has a right answer in the pool.")
        whole = pairs[0].queries.shape[1]
        dims = [whole]
        while dims[-1] // 2 >= SMALLEST:
            dims.append(dims[-1] // 2)
        points = []
        for dim in dims:
            for stored, (width, prepare) in _KINDS.items():
                times = fmean(_milliseconds(pair, dim, stored) for pair in pairs)  # rescoring is not in it
                for rescored in (False, True):
                    if rescored and stored != "binary" and dim == whole:
                        continue  # nothing is lost that rescoring could bring back
                    found = [_search(pair, dim, prepare, rescored) for pair in pairs]
                    at_1, at_10 = (fmean(values) for values in zip(*found, strict=True))
                    points.append(SizePoint(stored, dim, rescored, width(dim), at_1, at_10, times))
        return cls(points, fmean(len(pair.pool) for pair in pairs))

    def grids(self) -> list[Grid]:
        """Return the table of a report."""
        rows = [
            [
                f"{p.stored}{', rescored' if p.rescored else ''}",
                f"{p.dim:,}",
                f"{p.bytes:,}",
                *(f"{100 * recall:.1f}" for recall in (p.recall_at_1, p.recall_at_10)),
                f"{p.milliseconds:.3f}",
            ]
            for p in self.points
        ]
        title = f"Sizes of vectors, mean of all directions, pools of {self.pool:,.0f}"
        return [Grid(title, ["vectors", "dimensions", "bytes", "R@1", "R@10", "ms a query"], rows)]

    def figures(self) -> list[Figure]:
        """Return the curves of recall@1 and of the time of a search over the bytes of a vector."""
        recall: dict[str, list[tuple[float, float]]] = {}
        times: dict[str, list[tuple[float, float]]] = {}
        for p in sorted(self.points, key=lambda point: point.bytes):
            recall.setdefault(f"{p.stored}{', rescored' if p.rescored else ''}", []).append((p.bytes, p.recall_at_1))
            if not p.rescored:
                times.setdefault(p.stored, []).append((p.bytes, p.milliseconds))
        most = max((p.milliseconds for p in self.points), default=1.0)
        return [
            Figure(
                "R@1 by the size of vectors", line_chart(recall, "bytes", y_range=(0, 1), per_cent=True, doubling=True)
            ),
            Figure("Milliseconds a query", line_chart(times, "bytes", y_range=(0, most), doubling=True)),
        ]


@dataclass(frozen=True)
class _Direction:
    """Queries that have a right answer, and the pool, of one direction."""

    queries: Tensor
    pool: Tensor
    groups: Tensor
    pool_groups: Tensor

    @classmethod
    def of(cls, queries: Embeddings, candidates: Embeddings, a: str, b: str) -> _Direction:
        pool, pool_groups = candidates.vectors[b].float(), candidates.groups_of(b)
        if len(pool) > MOST_CANDIDATES:
            drawn = _drawn(len(pool), MOST_CANDIDATES)
            pool, pool_groups = pool[drawn], pool_groups[drawn]
        vectors, groups = queries.vectors[a].float(), queries.groups_of(a)
        answered = torch.isin(groups, pool_groups).nonzero().flatten()
        answered = answered[_drawn(len(answered), MOST_QUERIES)]
        return cls(vectors[answered], pool, groups[answered], pool_groups)


def _drawn(n: int, most: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(0))[:most].sort().values


def _whole(vectors: Tensor) -> Tensor:
    return functional.normalize(vectors, dim=1)


def _int8(vectors: Tensor) -> Tensor:
    """Return what is left of vectors whose components are rounded to 255 steps of each vector's largest one."""
    steps = vectors.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
    return functional.normalize((vectors / steps).round(), dim=1)


def _signs(vectors: Tensor) -> Tensor:
    return functional.normalize(torch.where(vectors >= 0, 1.0, -1.0), dim=1)


_KINDS: dict[str, tuple[Callable[[int], int], Callable[[Tensor], Tensor]]] = {
    "float32": (lambda dim: 4 * dim, _whole),
    "int8": (lambda dim: dim, _int8),
    "binary": (lambda dim: -(-dim // 8), _signs),
}


def _search(pair: _Direction, dim: int, prepare: Callable[[Tensor], Tensor], rescored: bool) -> tuple[float, float]:
    """Return recall@1 and recall@10."""
    queries, pool = prepare(pair.queries[:, :dim]), prepare(pair.pool[:, :dim])
    if not rescored:
        found = measure_queries(queries, pool, pair.groups, pair.pool_groups)
        return found.values["recall@1"].mean().item(), found.values["recall@10"].mean().item()
    at_1 = at_10 = 0
    for rows in torch.arange(len(queries)).split(max(1, 2**24 // len(pool))):
        shortlist = (queries[rows] @ pool.T).topk(min(RESCORED, len(pool)), dim=1).indices
        scores = torch.einsum("qd,qcd->qc", pair.queries[rows], pair.pool[shortlist])
        right = pair.pool_groups[shortlist] == pair.groups[rows, None]
        best = scores.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
        wrong_before = ((scores >= best - TIE_TOLERANCE) & ~right).sum(dim=1)  # ties count against the model
        at_1 += int((right.any(dim=1) & (wrong_before < 1)).sum())
        at_10 += int((right.any(dim=1) & (wrong_before < 10)).sum())
    return at_1 / len(queries), at_10 / len(queries)


def _milliseconds(pair: _Direction, dim: int, stored: str) -> float:
    """Return the time of a search with one query, as the median of several queries; it is that of finding, not of rescoring."""
    queries, pool = (v[:, :dim].contiguous().cpu().numpy() for v in (pair.queries[:20], pair.pool))
    if stored == "binary":
        packed, of_queries = np.packbits(pool >= 0, axis=1), np.packbits(queries >= 0, axis=1)
        search = lambda n: np.bitwise_count(packed ^ of_queries[n]).sum(axis=1, dtype=np.int32)  # noqa: E731
    elif stored == "int8":
        rounded = np.clip(np.rint(pool * 127), -127, 127).astype(np.int8)
        search = lambda n: rounded.astype(np.float32) @ queries[n]  # noqa: E731
    else:
        search = lambda n: pool @ queries[n]  # noqa: E731
    times = []
    for n in range(len(queries)):
        start = perf_counter()
        scores = search(n)
        np.argpartition(scores, -min(10, len(scores)))
        times.append(perf_counter() - start)
    return 1000 * float(np.median(times))
