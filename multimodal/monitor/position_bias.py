r"""Position bias: people click what they look at, and they look at the first hits most.

The model is the position-based one: a hit at position p of query q is clicked with probability

.. math:: P(\text{click} \mid q, d, p) = \theta_p \, \gamma_{qd}, \qquad \theta_p = p^{-\eta},

examination times relevance. A click that is weighted by :math:`1 / \theta_p` counts, in expectation, the relevance alone.

Sources: Joachims, Swaminathan and Schnabel 2017, "Unbiased Learning-to-Rank with Biased Feedback" (equation 4, the weights;
section 5.2, the curve); Wang et al. 2018, "Position Bias Estimation for Unbiased Learning to Rank in Personal Search".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from multimodal.monitor.feedback import Judgement

USUAL_ETA = 1.0
MAX_WEIGHT = 10.0
FEWEST_CLICKS = 100  # of rows that were shown at several positions, for an estimate
MAX_ETA = 3.0


def examination(positions: np.ndarray, eta: float = USUAL_ETA) -> np.ndarray:
    r"""Return the probability that a position is looked at, relative to the first: :math:`\theta_p = p^{-\eta}`.

    Args:
        positions: ``(n,)``, from 1.
        eta: how fast it falls; 0: all positions alike.

    Returns:
        ``(n,)`` float64 in (0, 1].

    Source: Joachims et al. 2017, section 5.2.

    Examples:
        >>> examination(np.array([1, 2, 4])).tolist()
        [1.0, 0.5, 0.25]
    """
    return np.asarray(positions, np.float64) ** -eta


def inverse_propensity(positions: np.ndarray, eta: float = USUAL_ETA, clip: float = MAX_WEIGHT) -> np.ndarray:
    r"""Return the weight of a click at each position: :math:`\min(1 / \theta_p, c)`.

    Clipping bounds what one click can do, and the variance; clicks below position :math:`c^{1/\eta}` count too little.

    Args:
        positions: ``(n,)``, from 1; NaN: unknown, of weight 1.
        eta: of ``examination``.
        clip: the largest weight c.

    Returns:
        ``(n,)`` float64 in [1, clip].

    Source: Joachims et al. 2017, equation 4; the clipping is that of its section 4.

    Examples:
        >>> inverse_propensity(np.array([1, 3, 40, np.nan])).tolist()
        [1.0, 3.0, 10.0, 1.0]
    """
    places = np.nan_to_num(np.asarray(positions, np.float64), nan=1.0)
    return np.minimum(1 / examination(places, eta), clip)


@dataclass(frozen=True)
class PositionBias:
    """How fast examination falls with the position.

    Attributes:
        eta: of ``examination``.
        clicks: the number of clicks that it is estimated from; 0: it is the usual value.
        error: standard error of the estimate; NaN if it is not one.

    Examples:
        >>> PositionBias(0.8, clicks=500, error=0.05)
        Examination 1 / position ** 0.80 (estimated from 500 clicks, standard error 0.05)
        >>> PositionBias(1.0)
        Examination 1 / position ** 1.00 (assumed)
    """

    eta: float = USUAL_ETA
    clicks: int = 0
    error: float = float("nan")

    def __repr__(self) -> str:
        source = f"estimated from {self.clicks:,} clicks, standard error {self.error:.2f}" if self.clicks else "assumed"
        return f"Examination 1 / position ** {self.eta:.2f} ({source})"


def estimate_position_bias(judgements: Sequence[Judgement], fewest: int = FEWEST_CLICKS) -> PositionBias:
    r"""Estimate how fast examination falls, from rows that the same query showed at different positions.

    A row d of query q was shown :math:`n_p` times at position p. Given its total number of clicks, the positions of these are
    distributed as :math:`n_p p^{-\eta} / \sum_r n_r r^{-\eta}`, whatever the relevance: it cancels. :math:`\eta` maximises the
    product of these over all clicks; the logarithm is concave in it.

    Args:
        judgements: searches whose hits were clicked or unused, with ``shown``; thumbs are not clicks. Without the unused ones
            nothing could be learned: of the searches with a click, each has one.
        fewest: clicks of rows that were shown at several positions; with fewer, the usual value is returned.

    Returns:
        The estimate, or the usual value.

    Source: the likelihood is that of the fixed-effects Poisson model (Hausman, Hall and Griliches 1984, section 2), applied to
    the position-based model; positions that vary without an experiment are those of Agarwal et al. 2019, "Estimating Position
    Bias without Intrusive Interventions".
    """
    logs, clicks = _shown_and_clicked(judgements)
    used = sum(float(c.sum()) for c in clicks)
    if used < fewest:
        return PositionBias()
    eta = USUAL_ETA
    information = 1.0
    for _ in range(100):  # Newton's steps
        slope, information = 0.0, 1e-9
        for (log_positions, shown), clicked in zip(logs, clicks, strict=True):
            weights = shown * np.exp(-eta * log_positions)
            weights /= weights.sum()
            mean = weights @ log_positions
            total = clicked.sum()
            slope -= clicked @ log_positions - total * mean
            information += total * (weights @ (log_positions - mean) ** 2)
        step = float(np.clip(slope / information, -0.5, 0.5))
        eta = float(np.clip(eta + step, 0.0, MAX_ETA))
        if abs(step) < 1e-6:
            break
    return PositionBias(eta, round(used), float(information**-0.5))


def _shown_and_clicked(
    judgements: Sequence[Judgement],
) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[np.ndarray]]:
    """Return for each query and row its logarithms of positions and how often it was there, and its clicks at each."""
    impressions: dict[tuple[object, str], dict[int, int]] = defaultdict(lambda: defaultdict(int))
    clicked: dict[tuple[object, str], dict[int, int]] = defaultdict(lambda: defaultdict(int))
    searches: set[str] = set()
    if not any(judgement.verdict == "unused" for judgement in judgements):
        return [], []
    for judgement in judgements:
        place, shown, query = judgement.position, judgement.shown, judgement.queried
        if judgement.verdict == "clicked":
            if place is None or place > len(shown) or shown[place - 1] != judgement.key:
                continue
            clicked[query, judgement.key][place] += 1
        elif judgement.verdict != "unused":
            continue
        if judgement.query_id and judgement.query_id in searches:  # another click in the same search
            continue
        searches.add(judgement.query_id)
        for number, key in enumerate(shown, start=1):
            impressions[query, key][number] += 1
    logs, clicks = [], []
    for pair, of_pair in clicked.items():
        positions = sorted(impressions[pair])
        if len(positions) > 1:
            logs.append((np.log(positions), np.array([impressions[pair][p] for p in positions], np.float64)))
            clicks.append(np.array([of_pair.get(p, 0) for p in positions], np.float64))
    return logs, clicks
