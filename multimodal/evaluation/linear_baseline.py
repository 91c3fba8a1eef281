"""Linear baseline: retrieval between two modalities with count features and linear algebra, without a neural network.

1. Each modality's processor provides a scikit-learn transformer of its raw values (``Processor.linear_features``).
2. A truncated singular value decomposition keeps the ``components`` strongest directions of these features.
3. A regularised canonical correlation analysis maps the features of two modalities into one space.
4. Retrieval in this space is measured by the same protocol as the model (``multimodal.evaluation.retrieval``).
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
from multimodal.evaluation.retrieval import Retrieval, ranks, retrieval

RIDGES = (1e-3, 1e-2, 1e-1, 1.0)  # the best on held-out training rows is used
HELD_OUT_FRACTION = 0.1
MIN_ROWS = 20

Values = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class CCA:
    """Solution of a canonical correlation analysis of two views.

    The projection of x is ``(x - x_mean) @ x_weights``, the projection of y likewise. All arrays are float64; d = min(p, q).

    Attributes:
        x_mean, y_mean: ``(p,)`` and ``(q,)`` means of the columns.
        x_weights, y_weights: ``(p, d)`` and ``(q, d)`` canonical directions.
        correlations: ``(d,)`` canonical correlations in [0, 1], descending.
    """

    x_mean: np.ndarray
    x_weights: np.ndarray
    y_mean: np.ndarray
    y_weights: np.ndarray
    correlations: np.ndarray


def fit_cca(x: np.ndarray, y: np.ndarray, ridge: float) -> CCA:
    r"""Fit a canonical correlation analysis with a ridge, in closed form.

    With :math:`\tilde C_{xx} = C_{xx} + r \frac{\operatorname{tr} C_{xx}}{p} I` and the same for y, the weights are
    :math:`\tilde C_{xx}^{-1/2} U` and :math:`\tilde C_{yy}^{-1/2} V` of the singular value decomposition
    :math:`\tilde C_{xx}^{-1/2} C_{xy} \tilde C_{yy}^{-1/2} = U \Sigma V^T`; the correlations are its singular values.

    Args:
        x, y: ``(n, p)`` and ``(n, q)`` rows of the two views.
        ridge: r, relative to the mean variance of a view's columns; more than 0.

    Returns:
        The means, directions and correlations.

    Source: Hotelling 1936 (analysis), Vinod 1976 (ridge).
    """
    from scipy.linalg import svd

    x, y = x.astype(np.float64), y.astype(np.float64)
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    x, y = x - x_mean, y - y_mean
    x_root, y_root = _inverse_root(x, ridge), _inverse_root(y, ridge)
    u, correlations, vt = svd(x_root @ (x.T @ y / len(x)) @ y_root, full_matrices=False)
    return CCA(x_mean, x_root @ u, y_mean, y_root @ vt.T, correlations)


def _inverse_root(centred: np.ndarray, ridge: float) -> np.ndarray:
    """Return the inverse square root of the regularised covariance, ``(p, p)``, of centred rows ``(n, p)``."""
    covariance = centred.T @ centred / len(centred)
    variance = max(np.trace(covariance) / len(covariance), np.finfo(np.float64).tiny)
    values, vectors = np.linalg.eigh(covariance + ridge * variance * np.eye(len(covariance)))
    return (vectors / np.sqrt(values)) @ vectors.T


@dataclass(frozen=True)
class LinearSpace:
    """Linear space of two modalities, fitted by ``fit_linear``.

    Attributes:
        features: modality -> the fitted transformer of its raw values to ``(n, p)`` features.
        means: modality -> ``(p,)`` mean of its features.
        weights: modality -> ``(p, d)`` canonical directions.
        correlations: ``(d,)`` canonical correlations of the training rows, descending.
        ridge: the chosen ridge, one of ``RIDGES``.

    Examples:
        >>> from sklearn.preprocessing import FunctionTransformer
        >>> features = _ReducedFeatures(FunctionTransformer(lambda values: np.array(values)), components=2, seed=0)
        >>> space = LinearSpace({"a": features}, {"a": np.zeros(2)}, {"a": np.eye(2)}, np.array([1.0, 0.5]), 0.1)
        >>> space.embed("a", [[3.0, 8.0]])  # (3, 8) * (1, 0.5), scaled to unit length
        array([[0.6, 0.8]], dtype=float32)
    """

    features: Mapping[str, _ReducedFeatures]
    means: Mapping[str, np.ndarray]
    weights: Mapping[str, np.ndarray]
    correlations: np.ndarray
    ridge: float

    def embed(self, modality: str, values: Sequence[Any]) -> np.ndarray:
        """Embed raw values of one of the two modalities.

        Projections are weighted by their canonical correlations.

        Returns:
            ``(n, d)`` float32 vectors of unit length.

        Source: Gong et al. 2014, section 3.3, with the power p = 1.
        """
        projected = (self.features[modality].transform(list(values)) - self.means[modality]) @ self.weights[modality]
        return _normalize(projected * self.correlations)


class TooFewRowsError(MultimodalError):
    """Too few rows have both modalities to fit their baseline."""


def fit_linear(
    values: Values, processors: Mapping[str, Processor], components: int = 300, seed: int = 0
) -> LinearSpace:
    """Fit the linear baseline of two modalities.

    Each ridge of ``RIDGES`` is fitted on nine tenths of the rows and measured by the mean reciprocal rank, over both
    directions, on the remaining tenth. The best ridge is then fitted on all rows.

    Args:
        values: modality -> raw values of the training rows, for two modalities, row by row; None where a value is
            missing. Only rows with both values are used.
        processors: modality -> its processor, for at least these two.
        components: maximum number of singular vectors to keep of each modality's features.
        seed: seed of the held-out rows and of the decomposition.

    Returns:
        The fitted space.

    Raises:
        UsageError: there are not two modalities, lengths differ, or a modality has no linear features.
        TooFewRowsError: fewer than ``MIN_ROWS`` rows have both modalities.
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
    held_out, train_rows = np.split(order, [max(round(HELD_OUT_FRACTION * len(rows)), 1)])
    mrr = {ridge: _mrr(fit_cca(x[train_rows], y[train_rows], ridge), x[held_out], y[held_out]) for ridge in RIDGES}
    ridge = max(mrr, key=mrr.__getitem__)
    cca = fit_cca(x, y, ridge)
    means, weights = {a: cca.x_mean, b: cca.y_mean}, {a: cca.x_weights, b: cca.y_weights}
    return LinearSpace(features, means, weights, cca.correlations, ridge)


@dataclass(frozen=True)
class TableRows:
    """Raw values of rows of a table.

    Attributes:
        values: modality -> the value of each row, None where it is missing.
        groups: the group of each row.
    """

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
    on_skipped_pair: Callable[[str], object] = lambda message: None,
) -> dict[str, Retrieval]:
    """Measure retrieval with the linear baseline for every ordered pair of modalities.

    Each unordered pair gets its own space. A pair is left out if one of its modalities has no linear features or if too few
    training rows have both.

    Args:
        train: rows to fit on.
        queries: rows to search for.
        candidates: rows to search in; None: the queries.
        processors: modality -> its processor.
        components: maximum number of singular vectors of each modality's features.
        seed: seed of the held-out rows and of the decomposition.
        on_skipped_pair: called with one line for each pair that too few training rows have.

    Returns:
        ``"text->image"`` -> the measures of that direction, with the names of ``retrieval``.

    Raises:
        MultimodalError: a value cannot be read.
    """
    modalities_with_features = [
        m for m in train.values if m in queries.values and processors[m].linear_features() is not None
    ]
    table: dict[str, Retrieval] = {}
    for pair in combinations(modalities_with_features, 2):
        try:
            space = fit_linear({m: train.values[m] for m in pair}, processors, components, seed)
        except TooFewRowsError as error:
            on_skipped_pair(f"{error} The pair is left out.")
            continue
        pool = None if candidates is None else _embed_pair(space, candidates, pair)
        table |= retrieval(_embed_pair(space, queries, pair), pool)
    return table


def _embed_pair(space: LinearSpace, rows: TableRows, pair: Sequence[str]) -> Embeddings:
    vectors, numbers = {}, {}
    for modality in pair:
        present_rows = [row for row, value in enumerate(rows.values[modality]) if value is not None]
        if present_rows:
            vectors[modality] = torch.from_numpy(
                space.embed(modality, [rows.values[modality][row] for row in present_rows])
            )
            numbers[modality] = torch.tensor(present_rows, dtype=torch.int64)
    return Embeddings(vectors, numbers, torch.tensor([stable_hash(group) for group in rows.groups]))


def _check_two_modalities(values: Values) -> tuple[str, str]:
    if len(values) != 2:
        raise UsageError(f"The linear baseline takes two modalities, got {sorted(values)}.")
    a, b = values
    if len(values[a]) != len(values[b]):
        raise UsageError(f"{a!r} has {len(values[a])} values, {b!r} has {len(values[b])}; each row needs both.")
    return a, b


def _features(modality: str, processors: Mapping[str, Processor], components: int, seed: int) -> _ReducedFeatures:
    features = processors[modality].linear_features()
    if features is None:
        usable = sorted(m for m, processor in processors.items() if processor.linear_features() is not None)
        raise UsageError(f"{modality!r} has no linear features; these modalities have: {', '.join(usable) or 'none'}.")
    return _ReducedFeatures(features, components, seed)


class _ReducedFeatures:
    """Transformer of raw values to the ``components`` strongest directions of their features, or to fewer features as is."""

    def __init__(self, features: Any, components: int, seed: int) -> None:
        self.features, self.components, self.seed = features, components, seed
        self.svd: Any = None

    def fit_transform(self, values: Sequence[Any]) -> np.ndarray:
        from sklearn.decomposition import TruncatedSVD

        features = self.features.fit_transform(values)
        if self.components < min(features.shape):
            self.svd = TruncatedSVD(self.components, random_state=self.seed).fit(features)
        return self._reduce(features)

    def transform(self, values: Sequence[Any]) -> np.ndarray:
        return self._reduce(self.features.transform(values))

    def _reduce(self, features: Any) -> np.ndarray:
        if self.svd is not None:
            return self.svd.transform(features)
        return features.toarray() if hasattr(features, "toarray") else np.asarray(features)


def _mrr(cca: CCA, x: np.ndarray, y: np.ndarray) -> float:
    """Return the mean reciprocal rank of paired rows, over both directions."""
    a = torch.from_numpy(_normalize((x - cca.x_mean) @ cca.x_weights * cca.correlations))
    b = torch.from_numpy(_normalize((y - cca.y_mean) @ cca.y_weights * cca.correlations))
    own = torch.arange(len(a))
    return float(sum((1 / ranks(p, q, own, own).double()).mean() for p, q in ((a, b), (b, a))) / 2)


def _normalize(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(length, np.finfo(np.float64).tiny)).astype(np.float32)
