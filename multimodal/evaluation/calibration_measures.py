"""Whether scores mean what the calibration says, measured on queries that it was not made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch

from multimodal.core.calibration import JUDGED, Calibration, PairCalibration
from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.evaluation.calibrate import (
    FEWEST_QUERIES,
    PRECISIONS,
    calibration_error,
    folds,
)
from multimodal.evaluation.figure import Figure, line_chart
from multimodal.evaluation.grid import Grid, number
from multimodal.evaluation.scored_hits import ScoredHits, scored_hits

CURVE_BINS = 10


@dataclass(frozen=True)
class CutOff:
    """What a wanted precision gives.

    Attributes:
        wanted: the precision that was wanted.
        reached: the fraction of right ones among the hits above the cut-off; NaN: there is none.
        found: the fraction of the right answers of the pool that are above it.
        silent: the fraction of the queries without an answer for which nothing is found.
    """

    wanted: float
    reached: float
    found: float
    silent: float


@dataclass(frozen=True)
class PairReliability:
    """How reliable the probabilities of one direction are.

    Attributes:
        error: expected calibration error of the first hits, in [0, 1].
        queries: number of queries.
        curve: (mean probability, fraction of right ones, number) of the first hits, in bins of equal width.
        cut_offs: for each of some precisions.
    """

    error: float
    queries: int
    curve: Sequence[tuple[float, float, int]]
    cut_offs: Sequence[CutOff]


@dataclass(frozen=True)
class CalibrationMeasures:
    """The reliability of scores.

    Half of the queries have no answer: the groups of a random half are taken out of the pool for their own queries.

    Attributes:
        source: "model": the calibration that is saved with it; "cross-fitting": one of the other evaluated queries.
        pairs: "text->image" -> its reliability.

    Examples:
        >>> import torch
        >>> vectors = torch.nn.functional.normalize(torch.randn(200, 8, generator=torch.Generator().manual_seed(0)), dim=1)
        >>> rows = torch.arange(200)
        >>> same = Embeddings({"text": vectors, "image": vectors}, {"text": rows, "image": rows}, groups=rows)
        >>> at_90 = CalibrationMeasures.of(same).pairs["text->image"].cut_offs[2]
        >>> at_90.wanted, at_90.reached > 0.9, at_90.found > 0.9
        (0.9, True, True)
    """

    source: str
    pairs: Mapping[str, PairReliability]

    @classmethod
    def of(
        cls, queries: Embeddings, candidates: Embeddings | None = None, calibration: Calibration | None = None
    ) -> CalibrationMeasures:
        """Measure all ordered pairs of modalities that have enough queries.

        Args:
            queries: embeddings to search for.
            candidates: embeddings to search in; None: the queries.
            calibration: the model's, made of other rows. None: calibrations of the other queries' hits, by cross-fitting.

        Raises:
            UsageError: no pair has enough queries with a right hit.
        """
        candidates = queries if candidates is None else candidates
        pairs = {}
        for a, b in permutations(queries.modalities, 2):
            if b not in candidates.vectors or len(torch.unique(queries.groups_of(a))) < FEWEST_QUERIES:
                continue
            hits = scored_hits(queries, candidates, a, b, seed=1)
            if not hits.is_right[:, :JUDGED].any():
                continue
            if calibration is None:
                pairs[f"{a}->{b}"] = _reliability(list(folds(hits)))
            elif (of_model := calibration.of(a, b)) is not None:
                pairs[f"{a}->{b}"] = _reliability([(of_model, hits)])
        if not pairs:
            raise UsageError(
                f"No pair of modalities has {FEWEST_QUERIES} queries, some of which find their row, so no score can be"
                " calibrated."
            )
        return cls("cross-fitting" if calibration is None else "model", pairs)

    def grids(self) -> list[Grid]:
        """Return the tables of a report."""
        errors = [
            [pair.replace("->", " -> "), number(100 * found.error, 1), f"{found.queries:,}"]
            for pair, found in self.pairs.items()
        ]
        rows = [
            [
                pair.replace("->", " -> "),
                f"{cut.wanted:g}",
                *(number(value) for value in (cut.reached, cut.found, cut.silent)),
            ]
            for pair, found in self.pairs.items()
            for cut in found.cut_offs
        ]
        made = "saved with the model" if self.source == "model" else "made of the other evaluated queries"
        return [
            Grid(f"Calibration of scores, {made}", ["query -> found", "error %", "queries"], errors),
            Grid(
                "Hits of a wanted precision, where half of the queries have no answer",
                ["query -> found", "wanted", "reached", "answers found", "silent without an answer"],
                rows,
            ),
        ]

    def figures(self) -> list[Figure]:
        """Return the curve of how often first hits are right over their probability."""
        lines = {
            pair.replace("->", " → "): [(100 * probability, right) for probability, right, _ in found.curve]
            for pair, found in self.pairs.items()
        }
        chart = line_chart(
            {"as it should be": [(0.0, 0.0), (100.0, 1.0)], **lines},
            "probability of the first hit, per cent",
            y_range=(0, 1),
            per_cent=True,
        )
        return [Figure("How often first hits are right", chart)]


def _reliability(parts: Sequence[tuple[PairCalibration, ScoredHits]]) -> PairReliability:
    probabilities = np.concatenate([fitted.probability(rest.scores)[:, 0] for fitted, rest in parts])
    first_is_right = np.concatenate([rest.is_right[:, 0] for _, rest in parts])
    bins = np.minimum((probabilities * CURVE_BINS).astype(int), CURVE_BINS - 1)
    curve = [
        (float(probabilities[chosen].mean()), float(first_is_right[chosen].mean()), int(chosen.sum()))
        for n in range(CURVE_BINS)
        if (chosen := bins == n).any()
    ]
    is_right = np.concatenate([rest.is_right[:, :JUDGED] for _, rest in parts])
    has_answer = np.concatenate([rest.has_answer for _, rest in parts])
    cut_offs = []
    for wanted in PRECISIONS:
        kept = np.concatenate(
            [fitted.probability(rest.scores)[:, :JUDGED] >= fitted.cut_off(wanted) for fitted, rest in parts]
        )
        right, silent = (kept & is_right).sum(), 1.0 - kept[~has_answer].any(axis=1)
        cut_offs.append(
            CutOff(
                wanted,
                float(right / kept.sum()) if kept.any() else float("nan"),
                float(right / has_answer.sum()),
                float(silent.mean()) if silent.size else float("nan"),
            )
        )
    return PairReliability(calibration_error(probabilities, first_is_right), len(probabilities), curve, cut_offs)
