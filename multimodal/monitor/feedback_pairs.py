"""Judgements become weighted pairs: how much a query should, or should not, find a row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from multimodal.monitor.feedback import Judgement
from multimodal.monitor.position_bias import MAX_WEIGHT, PositionBias, estimate_position_bias, inverse_propensity

VALUES = {"clicked": 1.0, "up": 2.0, "missing": 2.0, "down": -2.0}  # of a verdict at the first position
LEAST_OF_USER = 20.0  # a weight that each user may have
TIMES_MEDIAN = 3.0
MOST_OF_QUERY = 50.0

Queried = tuple[tuple[str, str], ...]  # modality and value, sorted


@dataclass(frozen=True)
class WeightedPair:
    """A query and a row, and how surely they belong together.

    Attributes:
        query: modality and value, of each value of the query.
        key: key of the row.
        modality: modality of the judged hit; "": not known.
        weight: positive: they match; negative: they do not.

    Examples:
        >>> WeightedPair((("text", "a red cup"),), "cup-1", "image", 3.0).weight
        3.0
    """

    query: Queried
    key: str
    modality: str
    weight: float


def weighted_pairs(
    judgements: Sequence[Judgement],
    bias: PositionBias | None = None,
    *,
    clip: float = MAX_WEIGHT,
    most_of_user: float | None = None,
    most_of_query: float = MOST_OF_QUERY,
) -> list[WeightedPair]:
    """Return the pairs of query and row that were judged, with the sums of the judgements' weights.

    1. Within one search, a repeated verdict of a user about a row counts once, and of thumbs up and down the last.
    2. A judgement has the value of its verdict (clicked 1, up and missing 2, down -2) times the inverse propensity of its
       position.
    3. Each user's weights are scaled down together if their absolute values sum to more than a bound, then each query's.
       Judgements without a user are of one user.

    Args:
        judgements: as ``read_feedback`` returns them; those without a query of values are left out.
        bias: how examination falls with the position. None: it is estimated, or assumed where there is too little.
        clip: largest inverse propensity.
        most_of_user: bound of a user's total. None: 3 times the median of all users' totals (of an even number, the lower
            one of two), but at least 20. A single user has none, as there is nobody else to be outweighed.
        most_of_query: bound of a query's total.

    Returns:
        One for each query, row and modality, in the order of their first judgements; none of weight 0.

    Source: Joachims et al. 2017, equation 4 (the propensities).

    Examples:
        >>> cup = {"text": "a red cup"}
        >>> judged = [Judgement("clicked", "cup-1", "image", cup, 3), Judgement("down", "hat-1", "image", cup, 1)]
        >>> found = weighted_pairs(judged)
        >>> [(pair.key, pair.weight) for pair in found]
        [('cup-1', 3.0), ('hat-1', -2.0)]
    """
    counted = [judgement for judgement in _distinct(judgements) if judgement.query and judgement.verdict in VALUES]
    if not counted:
        return []
    eta = (bias or estimate_position_bias(judgements)).eta
    places = np.array([np.nan if j.position is None else j.position for j in counted], np.float64)
    weights = np.array([VALUES[j.verdict] for j in counted]) * inverse_propensity(places, eta, clip)
    users, queries = [j.user for j in counted], [j.queried for j in counted]
    weights = bound_totals(weights, users, user_bound(weights, users) if most_of_user is None else most_of_user)
    weights = bound_totals(weights, queries, most_of_query)
    sums: dict[tuple[Queried, str, str], float] = defaultdict(float)
    for judgement, queried, weight in zip(counted, queries, weights.tolist(), strict=True):
        sums[queried, judgement.key, judgement.modality] += weight
    return [WeightedPair(*pair, weight) for pair, weight in sums.items() if weight]


def user_bound(weights: np.ndarray, users: Sequence[Hashable]) -> float:
    """Return the bound of a user's total: 3 times the (lower) median of all users' totals, at least 20.

    A flood by one user does not move the median. A single user has no bound.

    Args:
        weights: ``(n,)``.
        users: the user of each.

    Examples:
        >>> user_bound(np.array([9.0, 10.0, 1000.0]), ["a", "b", "c"])
        30.0
    """
    totals = np.sort(list(_totals(weights, users).values()))
    return float("inf") if len(totals) < 2 else max(LEAST_OF_USER, TIMES_MEDIAN * float(totals[(len(totals) - 1) // 2]))


def bound_totals(weights: np.ndarray, owners: Sequence[Hashable], most: float) -> np.ndarray:
    r"""Scale the weights of each owner u so that they sum to at most a bound B: :math:`w \min(1, B / \sum_{v \in u} |w_v|)`.

    Args:
        weights: ``(n,)``, of any sign.
        owners: the owner of each.
        most: the bound B.

    Returns:
        ``(n,)`` float64.

    Examples:
        >>> bound_totals(np.array([6.0, -2.0, 1.0]), ["a", "a", "b"], most=4.0).tolist()
        [3.0, -1.0, 1.0]
    """
    totals = _totals(weights, owners)
    return np.array([w * min(1.0, most / totals[o]) if w else 0.0 for w, o in zip(weights, owners, strict=True)])


def _totals(weights: np.ndarray, owners: Sequence[Hashable]) -> dict[Hashable, float]:
    totals: dict[Hashable, float] = defaultdict(float)
    for weight, owner in zip(weights.tolist(), owners, strict=True):
        totals[owner] += abs(weight)
    return totals


def _distinct(judgements: Sequence[Judgement]) -> list[Judgement]:
    """Return the judgements, without repeated ones within a search; a later thumb replaces an earlier one."""
    kept: dict[Hashable, Judgement] = {}
    for number, judgement in enumerate(judgements):
        kind = "thumb" if judgement.verdict in ("up", "down") else judgement.verdict
        of_search = (judgement.query_id, judgement.user, judgement.queried, judgement.key, kind)
        kept[of_search if judgement.query_id else number] = judgement
    return list(kept.values())
