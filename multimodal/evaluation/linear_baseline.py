"""The linear baseline: how far two modalities are told together by counting and linear algebra alone.

1. Each modality's processor names a scikit-learn transformer of its raw values (``Processor.linear_features``);
2. a truncated singular value decomposition keeps their ``components`` strongest directions;
3. a regularised canonical correlation analysis turns those of two modalities into one space;
4. the space is searched by the same protocol as the model's (``multimodal.evaluation.retrieval``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch

from multimodal.core.batch import stable_hash
from multimodal.core.embeddings import Embeddings
from multimodal.core.encoder import Processor
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.extras import require
from multimodal.evaluation.retrieval import Retrieval, ranks, retrieval

RIDGES = (1e-3, 1e-2, 1e-1, 1.0)  # of which the held-out part of the training rows chooses
HELD_OUT_FRACTION = 0.1
MIN_ROWS = 20

Values = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class CCA:
    """The solution for two views. ``correlations`` ``(d,)`` descend in [0, 1]; x's projection is ``(x - x_mean) @ x_weights``.

    Shapes: ``x_mean`` ``(p,)``, ``x_weights`` ``(p, d)``, ``y_mean`` ``(q,)``, ``y_weights`` ``(q, d)``; d = min(p, q).
    """

    x_mean: np.ndarray
    x_weights: np.ndarray
    y_mean: np.ndarray
    y_weights: np.ndarray
    correlations: np.ndarray


def fit_cca(x: np.ndarray, y: np.ndarray, ridge: float) -> CCA:
    r"""Canonical correlation analysis (Hotelling 1936) with a ridge (Vinod 1976), in closed form.

    With :math:`\tilde C_{xx} = C_{xx} + r \frac{\operatorname{tr} C_{xx}}{p} I` and the same for y, the weights are
    :math:`\tilde C_{xx}^{-1/2} U` and :math:`\tilde C_{yy}^{-1/2} V` of the singular value decomposition
    :math:`\tilde C_{xx}^{-1/2} C_{xy} \tilde C_{yy}^{-1/2} = U \Sigma V^T`; the correlations are its singular values.

    Args:
        x, y: ``(n, p)`` and ``(n, q)`` rows of the two views.
        ridge: r, relative to the mean variance of a view's columns; more than 0.
    """
    from scipy.linalg import svd

    x, y = x.astype(np.float64), y.astype(np.float64)
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    x, y = x - x_mean, y - y_mean
    x_root, y_root = _inverse_root(x, ridge), _inverse_root(y, ridge)
    u, correlations, vt = svd(x_root @ (x.T @ y / len(x)) @ y_root, full_matrices=False)
    return CCA(x_mean, x_root @ u, y_mean, y_root @ vt.T, correlations)


def _inverse_root(centred: np.ndarray, ridge: float) -> np.ndarray:
    covariance = centred.T @ centred / len(centred)
    variance = max(np.trace(covariance) / len(covariance), np.finfo(np.float64).tiny)
    values, vectors = np.linalg.eigh(covariance + ridge * variance * np.eye(len(covariance)))
    return (vectors / np.sqrt(values)) @ vectors.T


@dataclass(frozen=True)
class LinearSpace:
    """What ``fit_linear`` learned of two modalities: for each its features' transformer, its mean and its weights.

    ``ridge`` is the one that was chosen, ``correlations`` ``(d,)`` those of the training rows.
    """

    features: Mapping[str, _ReducedFeatures]
    means: Mapping[str, np.ndarray]
    weights: Mapping[str, np.ndarray]
    correlations: np.ndarray
    ridge: float

    def embed(self, modality: str, values: Sequence[Any]) -> np.ndarray:
        """Raw values of one of the two modalities -> ``(n, d)`` float32 vectors of unit length.

        Projections count by their canonical correlation (Gong et al. 2014, section 3.3, with its power p = 1).
        """
        projected = (self.features[modality].transform(list(values)) - self.means[modality]) @ self.weights[modality]
        return _normalize(projected * self.correlations)


class TooFewRowsError(MultimodalError):
    """Two modalities have too few rows in common to fit the baseline of them."""


def fit_linear(
    values: Values, processors: Mapping[str, Processor], components: int = 300, seed: int = 0
) -> LinearSpace:
    """Fit the linear baseline of two modalities.

    The ridge is the one of ``RIDGES`` with the highest mean reciprocal rank over both directions when a tenth of the rows is
    searched after fitting on the others; then all rows are fitted.

    Args:
        values: modality -> the raw values of the training rows, for two modalities, row by row; None where a row lacks
            one. Rows that have both count.
        processors: modality -> its processor, for at least these two.
        components: singular vectors to keep of each modality's features, at most.
        seed: of the held-out rows and of the decomposition.

    Raises:
        UsageError: not two modalities, unequal lengths, or a modality without linear features.
        TooFewRows: too few rows have both modalities.
        MultimodalError: a value cannot be read.
    """
    a, b = _check_two_modalities(values)
    rows = [
        row
        for row, pair in enumerate(zip(values[a], values[b], strict=True))
        if all(value is not None for value in pair)
    ]
    if len(rows) < MIN_ROWS:
        raise TooFewRowsError(
            f"The linear baseline needs {MIN_ROWS} training rows with both {a!r} and {b!r}, got {len(rows)}."
        )
    features, fitted = {}, {}
    for modality in (a, b):
        features[modality] = _features(modality, processors, components, seed)
        fitted[modality] = features[modality].fit_transform([values[modality][row] for row in rows])
    x, y = fitted[a], fitted[b]
    order = np.random.default_rng(seed).permutation(len(rows))
    held_out, kept = np.split(order, [max(round(HELD_OUT_FRACTION * len(rows)), 1)])
    mrr = {ridge: _mrr(fit_cca(x[kept], y[kept], ridge), x[held_out], y[held_out]) for ridge in RIDGES}
    ridge = max(mrr, key=mrr.__getitem__)
    cca = fit_cca(x, y, ridge)
    means, weights = {a: cca.x_mean, b: cca.y_mean}, {a: cca.x_weights, b: cca.y_weights}
    return LinearSpace(features, means, weights, cca.correlations, ridge)


@dataclass(frozen=True)
class TableRows:
    """Rows of a table: modality -> their raw values, None where a row lacks one; and the group of each."""

    values: Values
    groups: Sequence[str]


def linear_retrieval(
    train: TableRows,
    queries: TableRows,
    candidates: TableRows | None = None,
    *,
    processors: Mapping[str, Processor],
    components: int = 300,
    seed: int = 0,
    left_out: Callable[[str], object] = lambda message: None,
) -> dict[str, Retrieval]:
    """The linear baseline's measures of every ordered pair of modalities, named as ``retrieval`` names the model's.

    Each pair has a space of its own. Pairs of which one has no linear features are left out, and pairs that too few of
    the training rows have.

    Args:
        train: the rows to fit on.
        queries: the rows to search for.
        candidates: the rows to search in; None: the queries' own.
        processors, components, seed: as ``fit_linear`` takes them.
        left_out: called with one line on each pair that too few rows have.

    Raises:
        UsageError: scikit-learn, which the extra ``baseline`` installs, is missing.
    """
    require("baseline", "The linear baseline", "sklearn")
    able = [m for m in train.values if m in queries.values and processors[m].linear_features() is not None]
    table: dict[str, Retrieval] = {}
    for pair in combinations(able, 2):
        try:
            space = fit_linear({m: train.values[m] for m in pair}, processors, components, seed)
        except TooFewRowsError as few:
            left_out(f"{few} The pair is left out.")
            continue
        pool = None if candidates is None else _embedded(space, candidates, pair)
        table |= retrieval(_embedded(space, queries, pair), pool)
    return table


def _embedded(space: LinearSpace, rows: TableRows, pair: Sequence[str]) -> Embeddings:
    vectors, numbers = {}, {}
    for modality in pair:
        there = [row for row, value in enumerate(rows.values[modality]) if value is not None]
        if there:
            vectors[modality] = torch.from_numpy(space.embed(modality, [rows.values[modality][row] for row in there]))
            numbers[modality] = torch.tensor(there, dtype=torch.int64)
    return Embeddings(vectors, numbers, torch.tensor([stable_hash(group) for group in rows.groups]))


def _check_two_modalities(values: Values) -> tuple[str, str]:
    if len(values) != 2:
        raise UsageError(f"The linear baseline takes two modalities, got {sorted(values)}.")
    a, b = values
    if len(values[a]) != len(values[b]):
        raise UsageError(f"The values of {a!r} and {b!r} are {len(values[a])} and {len(values[b])}: not row by row.")
    return a, b


def _features(modality: str, processors: Mapping[str, Processor], components: int, seed: int) -> _ReducedFeatures:
    features = processors[modality].linear_features()
    if features is None:
        able = sorted(m for m, processor in processors.items() if processor.linear_features() is not None)
        raise UsageError(f"{modality!r} has no linear features; those that have: {', '.join(able) or 'none'}.")
    return _ReducedFeatures(features, components, seed)


class _ReducedFeatures:
    """Raw values -> the ``components`` strongest directions of their features, or all features where there are no more."""

    def __init__(self, features: Any, components: int, seed: int) -> None:
        self.features, self.components, self.seed = features, components, seed
        self.svd: Any = None

    def fit_transform(self, values: Sequence[Any]) -> np.ndarray:
        from sklearn.decomposition import TruncatedSVD

        found = self.features.fit_transform(values)
        if self.components < min(found.shape):
            self.svd = TruncatedSVD(self.components, random_state=self.seed).fit(found)
        return self._reduced(found)

    def transform(self, values: Sequence[Any]) -> np.ndarray:
        return self._reduced(self.features.transform(values))

    def _reduced(self, found: Any) -> np.ndarray:
        if self.svd is not None:
            return self.svd.transform(found)
        return found.toarray() if hasattr(found, "toarray") else np.asarray(found)


def _mrr(cca: CCA, x: np.ndarray, y: np.ndarray) -> float:
    """The mean reciprocal rank of paired rows, over both directions."""
    a = torch.from_numpy(_normalize((x - cca.x_mean) @ cca.x_weights * cca.correlations))
    b = torch.from_numpy(_normalize((y - cca.y_mean) @ cca.y_weights * cca.correlations))
    own = torch.arange(len(a))
    return float(sum((1 / ranks(p, q, own, own).double()).mean() for p, q in ((a, b), (b, a))) / 2)


def _normalize(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(length, np.finfo(np.float64).tiny)).astype(np.float32)
