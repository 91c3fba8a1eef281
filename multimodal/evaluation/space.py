"""The shape of a space as a whole: each modality, each pair of them, and a pool in which all compete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

import torch
from torch import Tensor

from multimodal.core.embeddings import Embeddings
from multimodal.evaluation.geometry import (
    alignment,
    close_gap,
    effective_rank,
    hubness,
    modality_gap,
    modality_means,
    uniformity,
)
from multimodal.evaluation.grid import Grid, number
from multimodal.evaluation.mixed_pool import MixedPool, mixed_pool
from multimodal.evaluation.retrieval import Retrieval, retrieval

SAMPLE = 10_000  # vectors of a modality by which its shape is measured: the time of uniformity grows with the square


@dataclass(frozen=True)
class ModalityShape:
    """How the vectors of a modality lie in the space.

    Attributes:
        vectors: their number.
        uniformity: see ``geometry.uniformity``.
        effective_rank: number of directions that they use, see ``geometry.effective_rank``.
    """

    vectors: int
    uniformity: float
    effective_rank: float


@dataclass(frozen=True)
class PairShape:
    """How the vectors of two modalities lie to each other.

    Attributes:
        partners: number of rows that have both.
        alignment: mean squared distance of partners; NaN: there are none.
        gap: distance of the two means.
        hubness: skewness of the 10-occurrences, for the first modality's queries in the second's pool.
        hubness_back: the same for the other direction.
    """

    partners: int
    alignment: float
    gap: float
    hubness: float
    hubness_back: float


@dataclass(frozen=True)
class Space:
    """The shape of a space.

    Attributes:
        modalities: modality -> its shape.
        pairs: "image-text" -> their shape.
        mixed: modality of the queries -> retrieval where all modalities compete.
        mixed_centred: the same after each modality's mean was subtracted; empty: no means were given.
        uncentred: "text->image" -> retrieval between two modalities, before that.
        centred: the same after it; empty: no means were given.

    Examples:
        >>> rows = torch.arange(2)
        >>> vectors = {"text": torch.eye(3)[:2], "image": torch.eye(3)[:2]}
        >>> space = Space.of(Embeddings(vectors, {"text": rows, "image": rows}, groups=rows))
        >>> space.pairs["text-image"].alignment, space.mixed["text"].recall_at_1
        (0.0, 1.0)
    """

    modalities: Mapping[str, ModalityShape]
    pairs: Mapping[str, PairShape]
    mixed: Mapping[str, MixedPool]
    mixed_centred: Mapping[str, MixedPool] = field(default_factory=dict)
    uncentred: Mapping[str, Retrieval] = field(default_factory=dict)
    centred: Mapping[str, Retrieval] = field(default_factory=dict)

    @classmethod
    def of(cls, embeddings: Embeddings, means: Mapping[str, Tensor] | None = None) -> Space:
        """Measure a space.

        Args:
            embeddings: the vectors to measure; those that are not finite are left out.
            means: modality -> mean vector ``(dim,)`` of other rows, such as the training split's, by which the modality gap
                is closed; a modality without a mean is left as it is. None: it is not closed.
        """
        embeddings = embeddings.keep({m: v.isfinite().all(dim=1) for m, v in embeddings.vectors.items()})
        own_means = modality_means(embeddings)
        drawn = {m: _sample(v) for m, v in embeddings.vectors.items()}
        modalities = {
            m: ModalityShape(len(embeddings.vectors[m]), uniformity(v), effective_rank(v)) for m, v in drawn.items()
        }
        pairs = {}
        for a, b in combinations(embeddings.modalities, 2):
            x, y = _partners(embeddings, a, b)
            pairs[f"{a}-{b}"] = PairShape(
                len(x),
                alignment(x, y) if len(x) else float("nan"),
                modality_gap(own_means, a, b),
                hubness(drawn[a], drawn[b]),
                hubness(drawn[b], drawn[a]),
            )
        if means is None:
            return cls(modalities, pairs, mixed_pool(embeddings))
        closed = close_gap(embeddings, means)
        return cls(
            modalities, pairs, mixed_pool(embeddings), mixed_pool(closed), retrieval(embeddings), retrieval(closed)
        )

    def grids(self) -> list[Grid]:
        """Return the tables of a report."""
        shapes = [
            [m, f"{s.vectors:,}", number(s.uniformity, 2), number(s.effective_rank, 1)]
            for m, s in self.modalities.items()
        ]
        of_pairs = [
            [p, f"{s.partners:,}", number(s.alignment), number(s.gap), number(s.hubness, 2), number(s.hubness_back, 2)]
            for p, s in self.pairs.items()
        ]
        grids = [
            Grid("Space of each modality", ["modality", "vectors", "uniformity", "effective rank"], shapes),
            Grid("Pairs", ["pair", "partners", "alignment", "gap", "hubness", "hubness back"], of_pairs),
            _mixed_grid("Search in all modalities at once", self.mixed),
        ]
        if self.mixed_centred:
            grids.append(_mixed_grid("The same, each modality's mean subtracted", self.mixed_centred))
            rows = [
                [
                    p.replace("->", " -> "),
                    *(f"{100 * r.recall_at_1:.1f}" for r in (self.uncentred[p], after)),
                    number(after.mrr),
                ]
                for p, after in self.centred.items()
            ]
            columns = ["query -> found", "R@1 before", "R@1 after", "MRR after"]
            grids.append(Grid("Two modalities, each one's mean subtracted", columns, rows))
        return grids


def _mixed_grid(title: str, found: Mapping[str, MixedPool]) -> Grid:
    rows = [
        [
            m,
            *(f"{100 * value:.1f}" for value in (r.recall_at_1, r.recall_at_10)),
            number(r.mrr),
            f"{100 * r.own_modality_first:.1f}",
            f"{r.queries:,}",
            f"{r.pool:,}",
        ]
        for m, r in found.items()
    ]
    return Grid(title, ["queries of", "R@1", "R@10", "MRR", "own modality first %", "queries", "pool"], rows)


def _sample(vectors: Tensor) -> Tensor:
    """Return at most ``SAMPLE`` of the vectors, drawn at random."""
    if len(vectors) <= SAMPLE:
        return vectors
    return vectors[torch.randperm(len(vectors), generator=torch.Generator().manual_seed(0))[:SAMPLE]]


def _partners(embeddings: Embeddings, a: str, b: str) -> tuple[Tensor, Tensor]:
    """Return the vectors of the rows that have both modalities, row by row."""
    device = embeddings.groups.device
    at = torch.full((len(embeddings.groups),), -1, device=device)
    at[embeddings.rows[a]] = torch.arange(len(embeddings.rows[a]), device=device)
    of_b = embeddings.rows[b]
    has_both = at[of_b] >= 0
    return embeddings.vectors[a][at[of_b[has_both]]], embeddings.vectors[b][has_both]
