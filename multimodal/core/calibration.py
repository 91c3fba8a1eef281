"""What a score means: the probability that a hit is right, and which hits are right with a wanted precision.

A cosine alone says little: where a pool holds look-alikes, a wrong hit scores nearly as high as the right one. So the
probability of a hit also depends on its competitors: a softmax over the hits of a query and one more outcome, that nothing in
the pool is right. Its two parameters are fitted to validation queries, and its values are corrected by isotonic regression.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from multimodal.core.errors import MultimodalError, UsageError

COMPETITORS = 20  # hits of a query, of different groups, that its softmax is over
JUDGED = 10  # of them, the first, which are counted in the bins
MOST_BINS = 150
HITS_IN_BIN = 15  # on average
MOST_SHARPNESS = 1e5
CALIBRATE = "Calibrate the model: multimodal calibrate RUN."


@dataclass(frozen=True)
class ConfidenceBins:
    """How often hits are right, by the confidence in them.

    Args:
        middle: ``(n,)`` the mean confidence of each bin, ascending.
        right, wrong: ``(n,)`` numbers of hits in each bin.

    Examples:
        >>> bins = ConfidenceBins([0.2, 0.8], [10, 90], [90, 10])
        >>> bins.probability(np.array([0.0, 0.5, 0.9])).round(2).tolist()
        [0.1, 0.5, 0.9]
    """

    middle: Sequence[float]
    right: Sequence[int]
    wrong: Sequence[int]

    @classmethod
    def of(cls, confidence: np.ndarray, is_right: np.ndarray) -> ConfidenceBins:
        """Count hits, at least one.

        Args:
            confidence: ``(h,)`` in [0, 1].
            is_right: ``(h,)`` bool.
        """
        order = np.argsort(confidence, kind="stable")
        confidence, is_right = confidence[order], is_right[order]
        # the confident hits decide which are shown, so that their bins are the finest
        count = max(1, min(MOST_BINS, len(confidence) // HITS_IN_BIN))
        shares = 1 - (1 - np.linspace(0, 1, count + 1)[:-1]) ** 2
        starts = np.unique((shares * len(confidence)).astype(int))
        starts = np.unique(np.searchsorted(confidence, confidence[starts]))  # equal ones are in one bin
        sizes = np.diff([*starts, len(confidence)])
        right = np.add.reduceat(is_right.astype(int), starts)
        middle = np.add.reduceat(confidence, starts) / sizes
        return cls(np.maximum.accumulate(middle).tolist(), right.tolist(), (sizes - right).tolist())

    def probability(self, confidence: np.ndarray) -> np.ndarray:
        """Return the probability that hits of a confidence are right; it does not fall as the confidence rises.

        Args:
            confidence: of any shape, in [0, 1].
        """
        return np.interp(confidence, self.middle, self.fitted)

    @cached_property
    def fitted(self) -> np.ndarray:
        """The probability of each bin, ``(n,)``, by isotonic regression."""
        from scipy.optimize import isotonic_regression

        right, hits = np.asarray(self.right, np.float64), np.add(self.right, self.wrong)
        return isotonic_regression(right / hits, weights=hits).x


@dataclass(frozen=True)
class PairCalibration:
    r"""How the scores of one direction become probabilities.

    The confidence in hit i of a query is :math:`e^{a s_i} / (e^{a b} + \sum_j e^{a s_j})`, for cosines s, sharpness a and the
    cosine b of no answer. First hits and others of equal confidence are not right equally often, so they are counted apart.

    Args:
        sharpness: a.
        no_answer: b.
        first: of the first hits.
        others: of the other ones; None: there were none.
        pool: number of candidate groups that were searched.
        queries: number of queries.
        error: expected calibration error of the first hits of queries that were not used to fit it, in [0, 1].

    Examples:
        >>> first, others = ConfidenceBins([0.2, 0.8], [10, 90], [90, 10]), ConfidenceBins([0.1], [1], [99])
        >>> found = PairCalibration(20.0, 0.5, first, others, pool=100, queries=200, error=0.0)
        >>> alone, together = np.array([[0.7]]), np.array([[0.7, 0.69]])
        >>> found.confidence(alone).round(2).tolist(), found.confidence(together).round(2).tolist()
        ([[0.98]], [[0.54, 0.45]])
        >>> found.probability(alone).round(2).tolist(), found.probability(together).round(2).tolist()
        ([[0.9]], [[0.56, 0.01]])
        >>> found.cut_off(0.8), found.cut_off(0.9)  # 90 of 100 may be right by chance where 0.87 is true
        (0.9, inf)
    """

    sharpness: float
    no_answer: float
    first: ConfidenceBins
    others: ConfidenceBins | None
    pool: int
    queries: int
    error: float

    def confidence(self, scores: np.ndarray) -> np.ndarray:
        """Return the confidence in each hit, ``(q, h)`` in [0, 1].

        Args:
            scores: ``(q, h)`` cosines of the first hits of each query, of different groups, descending; minus infinity: there
                is none.
        """
        return confidences(scores, self.sharpness, self.no_answer)

    def probability(self, scores: np.ndarray) -> np.ndarray:
        """Return the probability that each hit is right, ``(q, h)`` in [0, 1].

        Args:
            scores: as of ``confidence``, all competitors of a query in one row.
        """
        confidence = self.confidence(scores)
        found = np.zeros_like(confidence)
        found[:, :1] = self.first.probability(confidence[:, :1])
        if self.others is not None:
            found[:, 1:] = self.others.probability(confidence[:, 1:])
        return found

    def cut_off(self, precision: float) -> float:
        """Return the lowest probability from which on the hits have a precision; infinite if none has it.

        The lower bound of the precision's interval of one standard error is what must reach it, so that few validation
        queries do not promise too much.

        Args:
            precision: the fraction of right ones among all hits with at least this probability, between 0 and 1.

        Raises:
            UsageError: the precision is not between 0 and 1.

        Source: Wilson 1927 (the interval).
        """
        check_precision(precision)
        bins = [self.first, *([] if self.others is None else [self.others])]
        fitted, right, wrong = (
            np.concatenate([np.asarray(getattr(b, name)) for b in bins]) for name in ("fitted", "right", "wrong")
        )
        order = np.argsort(-fitted, kind="stable")
        fitted, right, hits = fitted[order], np.cumsum(right[order]), np.cumsum((right + wrong)[order])
        is_last = np.append(np.diff(fitted) != 0, True)  # of equal ones, all are shown or none
        share, z2 = right / hits, 1.0 / hits
        lower = (share + z2 / 2 - np.sqrt(share * (1 - share) / hits + z2 / (4 * hits))) / (1 + z2)
        reached = np.flatnonzero(is_last & (lower >= precision))
        return float(fitted[reached[-1]]) if len(reached) else float("inf")


def confidences(scores: np.ndarray, sharpness: float, no_answer: float) -> np.ndarray:
    """Return the softmax of ``PairCalibration``, ``(q, h)``.

    Args:
        scores: ``(q, h)`` cosines.
        sharpness: a.
        no_answer: b.
    """
    logits = sharpness * (np.asarray(scores, np.float64) - no_answer)
    highest = np.maximum(logits.max(axis=1, keepdims=True, initial=0.0), 0.0)
    exponentials = np.exp(logits - highest)
    return exponentials / (exponentials.sum(axis=1, keepdims=True) + np.exp(-highest))


def check_precision(precision: float) -> None:
    """Raise a ``UsageError`` unless a wanted precision is between 0 and 1."""
    if not 0 < precision < 1:
        raise UsageError(f"A precision is a fraction between 0 and 1, like 0.9; got {precision}.")


MADE_OF = "made of"  # in JSON, next to the directions


@dataclass(frozen=True)
class Calibration:
    """The calibrations of a model's directions.

    Args:
        pairs: "text->image" -> its calibration.
        table: fingerprint of the table of whose rows it was made; "": unknown.
        splits: the splits of these rows.

    Examples:
        >>> pair = PairCalibration(20.0, 0.5, ConfidenceBins([0.5], [9], [1]), None, pool=100, queries=20, error=0.0)
        >>> Calibration.from_json(Calibration({"text->image": pair}).to_json()).of("text", "image").queries
        20
    """

    pairs: Mapping[str, PairCalibration] = field(default_factory=dict)
    table: str = ""
    splits: tuple[str, ...] = ()

    def is_made_of(self, table: str, split: str | Sequence[str]) -> bool:
        """Return whether it was made of rows of a split, so that it cannot be measured on them.

        Args:
            table: fingerprint of the table.
            split: the split, or several.

        Examples:
            >>> made = Calibration(table="f", splits=("validation",))
            >>> made.is_made_of("f", ["test", "validation"]), made.is_made_of("f", "test"), made.is_made_of("g", "all")
            (True, False, False)
        """
        splits = {split} if isinstance(split, str) else {*split}
        return self.table == table != "" and ("all" in {*splits, *self.splits} or bool(splits & {*self.splits}))

    def of(self, query: str, found: str) -> PairCalibration | None:
        """Return the calibration of a direction; None: it was not calibrated.

        Args:
            query: modality of the queries.
            found: modality of the hits.
        """
        return self.pairs.get(f"{query}->{found}")

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        described: dict[str, Any] = {pair: _described(found) for pair, found in self.pairs.items()}
        return described | ({MADE_OF: {"table": self.table, "splits": [*self.splits]}} if self.table else {})

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Calibration:
        """Read what ``to_json`` returned.

        Args:
            document: the JSON values.

        Raises:
            ValueError, TypeError, KeyError: it is something else.
        """
        pairs = {str(pair): _checked(entry) for pair, entry in document.items() if pair != MADE_OF}
        made_of = document.get(MADE_OF, {})
        return cls(pairs, str(made_of.get("table", "")), tuple(map(str, made_of.get("splits", ()))))


_NUMBERS = ("sharpness", "no_answer", "pool", "queries", "error")


def _described(found: PairCalibration) -> dict[str, Any]:
    numbers = {name: getattr(found, name) for name in _NUMBERS}
    bins = {name: None if (b := getattr(found, name)) is None else _bins_as_json(b) for name in ("first", "others")}
    return numbers | bins


def _bins_as_json(bins: ConfidenceBins) -> dict[str, Any]:
    return {name: list(getattr(bins, name)) for name in ("middle", "right", "wrong")}


def _checked(entry: Mapping[str, Any]) -> PairCalibration:
    numbers = {name: entry[name] for name in _NUMBERS}
    if not all(isinstance(value, int | float) for value in numbers.values()):
        raise TypeError("a calibration has a value that is not a number")
    if not (
        np.isfinite([numbers["sharpness"], numbers["no_answer"]]).all() and 0 <= numbers["sharpness"] <= MOST_SHARPNESS
    ):
        raise ValueError("a calibration has a sharpness or a cosine that is not finite")
    others = None if entry["others"] is None else _checked_bins(entry["others"])
    return PairCalibration(**numbers, first=_checked_bins(entry["first"]), others=others)


def _checked_bins(entry: Mapping[str, Any]) -> ConfidenceBins:
    bins = ConfidenceBins(*(list(entry[name]) for name in ("middle", "right", "wrong")))
    middle, right, wrong = (np.asarray(column, np.float64) for column in (bins.middle, bins.right, bins.wrong))
    if not middle.shape == right.shape == wrong.shape == (len(bins.middle),) or not 1 <= len(middle) <= MOST_BINS:
        raise ValueError("a calibration has bins of different numbers")
    if not np.isfinite([middle, right, wrong]).all() or (np.diff(middle) < 0).any():
        raise ValueError("a calibration has values that are not finite or not ascending")
    if min(right.min(), wrong.min()) < 0 or (right + wrong).min() < 1:
        raise ValueError("a calibration has negative or missing counts")
    return bins


def need_calibration(calibration: Calibration | None, query: str) -> Calibration:
    """Return the calibration of a model, of which some direction starts at the queries' modality.

    Args:
        calibration: the model's; None: it has none.
        query: modality of the queries.

    Raises:
        MultimodalError: it has none, or none for such queries.
    """
    if calibration is None:
        raise MultimodalError(f"The model's scores are not calibrated, so their precision is not known. {CALIBRATE}")
    if not any(pair.startswith(f"{query}->") for pair in calibration.pairs):
        raise MultimodalError(
            f"The model's scores are calibrated for {', '.join(calibration.pairs) or 'nothing'}, not for queries of"
            f" {query}. {CALIBRATE}"
        )
    return calibration
