"""Clustering: whether the groups that k-means finds in a space are the known classes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from multimodal.core.errors import UsageError

SILHOUETTE_SAMPLE = 10_000  # vectors, as its time grows with the square of their number


@dataclass(frozen=True)
class Clusters:
    """Agreement of k-means clusters with classes, k being the number of classes.

    Attributes:
        nmi: normalized mutual information of clusters and classes, in [0, 1]; it is also called V-measure.
        ari: adjusted Rand index; 0 is what chance gives, 1 equality.
        homogeneity: whether a cluster holds one class only, in [0, 1].
        completeness: whether a class lies in one cluster only, in [0, 1].
        silhouette: how much nearer each vector is to its class than to the next one, by the cosine distance, in [-1, 1].
        classes: number of classes.
        vectors: number of vectors.

    Examples:
        >>> vectors = np.repeat(np.eye(2), 3, axis=0)
        >>> found = measure_clusters(vectors, ["cup", "cup", "cup", "hat", "hat", "hat"])
        >>> found.nmi, found.ari, found.silhouette
        (1.0, 1.0, 1.0)
    """

    nmi: float
    ari: float
    homogeneity: float
    completeness: float
    silhouette: float
    classes: int
    vectors: int


def measure_clusters(vectors: np.ndarray, labels: Sequence[object] | np.ndarray, seed: int = 0) -> Clusters:
    """Cluster unit vectors by k-means and compare the clusters with classes.

    Args:
        vectors: ``(n, dim)`` unit vectors.
        labels: the class of each; at least two classes, and a class with two vectors.
        seed: seed of the first centres of k-means, of which the best of three is kept, and of the silhouette's sample.

    Raises:
        UsageError: there are fewer than two classes, or each vector is of a class of its own.

    Source: Rosenberg and Hirschberg 2007 (NMI with the arithmetic mean, homogeneity, completeness), Hubert and Arabie 1985
    (ARI), Rousseeuw 1987 (silhouette).
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import (
        adjusted_rand_score,
        homogeneity_completeness_v_measure,
        silhouette_score,
    )

    names, classes = np.unique([str(label) for label in labels], return_inverse=True)
    if not 2 <= len(names) < len(classes):
        raise UsageError(
            f"Clustering needs at least two classes and fewer classes than vectors, got {len(names)} for {len(classes)}."
        )
    vectors = np.asarray(vectors, np.float32)
    kmeans = KMeans(len(names), n_init=3, random_state=seed)  # pyright: ignore[reportArgumentType]
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # equal vectors are in one cluster, which leaves others empty
        found = kmeans.fit_predict(vectors)
    homogeneity, completeness, nmi = homogeneity_completeness_v_measure(classes, found)
    drawn = np.random.default_rng(seed).permutation(len(classes))[:SILHOUETTE_SAMPLE]
    usable = 2 <= len(np.unique(classes[drawn])) < len(drawn)
    silhouette = silhouette_score(vectors[drawn], classes[drawn], metric="cosine") if usable else float("nan")
    return Clusters(
        nmi=float(nmi),
        ari=float(adjusted_rand_score(classes, found)),
        homogeneity=float(homogeneity),
        completeness=float(completeness),
        silhouette=float(silhouette),
        classes=len(names),
        vectors=len(classes),
    )
