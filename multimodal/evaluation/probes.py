"""What classes can be read from frozen vectors: k nearest neighbours, a linear classifier, and how many examples it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from multimodal.core.errors import UsageError

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

REGULARISATIONS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)  # scikit-learn's C; the best on held-out rows is used
HELD_OUT_FRACTION = 0.2
SHOTS = (1, 2, 4, 8, 16, 32)
DRAWS = 10  # of the examples, for each number of them
BLOCK = 2**24  # scores in memory at a time

Labels = Sequence[object] | np.ndarray


@dataclass(frozen=True)
class Accuracy:
    """How many of the measured vectors got their class.

    Attributes:
        accuracy: fraction of the vectors whose class was found.
        balanced: mean of that fraction over the classes, in which a rare class counts as much as a frequent one.
        majority: accuracy of always answering the most frequent training class.
        classes: number of classes in the training vectors.
        vectors: number of measured vectors.

    Examples:
        >>> Accuracy.of(np.array(["cup", "hat", "cup"]), np.array(["cup", "cup", "cup"]), np.array(["cup", "hat", "cup"]))
        Accuracy(accuracy=0.6666666666666666, balanced=0.5, majority=0.6666666666666666, classes=2, vectors=3)
    """

    accuracy: float
    balanced: float
    majority: float
    classes: int
    vectors: int

    @classmethod
    def of(cls, labels: np.ndarray, predicted: np.ndarray, train_labels: np.ndarray) -> Accuracy:
        """Compare predictions with labels.

        Args:
            labels, predicted: ``(n,)`` strings, the class and the found class of each measured vector.
            train_labels: the classes of the training vectors.
        """
        right = labels == predicted
        names, counts = np.unique(train_labels, return_counts=True)
        return cls(
            accuracy=float(right.mean()),
            balanced=float(np.mean([right[labels == name].mean() for name in np.unique(labels)])),
            majority=float((labels == names[counts.argmax()]).mean()),
            classes=len(names),
            vectors=len(labels),
        )


def knn(train: np.ndarray, train_labels: Labels, test: np.ndarray, test_labels: Labels, k: int = 20) -> Accuracy:
    """Classify vectors by the votes of their nearest training vectors, weighted by ``exp(cosine / 0.07)``.

    Args:
        train, test: ``(n, dim)`` and ``(t, dim)`` unit vectors.
        train_labels, test_labels: the class of each.
        k: number of neighbours that vote.

    Raises:
        UsageError: there are no vectors, or fewer than two classes.

    Source: Wu et al. 2018, section 3.4, with the temperature 0.07.
    """
    train_names, test_names = _as_text(train_labels), _as_text(test_labels)
    names, classes = np.unique(train_names, return_inverse=True)
    _check(names, train_names, test_names)
    predicted, k = [], min(k, len(train))
    for start in range(0, len(test), step := max(1, BLOCK // len(train))):
        scores = test[start : start + step] @ train.T
        nearest = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        weights = np.exp((np.take_along_axis(scores, nearest, axis=1) - 1) / 0.07)
        votes = np.zeros((len(scores), len(names)))
        np.add.at(votes, (np.arange(len(scores))[:, None], classes[nearest]), weights)
        predicted.append(names[votes.argmax(axis=1)])
    return Accuracy.of(test_names, np.concatenate(predicted), train_names)


def linear_probe(
    train: np.ndarray, train_labels: Labels, test: np.ndarray, test_labels: Labels, seed: int = 0
) -> Accuracy:
    """Fit logistic regression on frozen vectors and measure it on others.

    The regularisation is the best of ``REGULARISATIONS`` on a fifth of the training vectors, or 1 where a class has a single
    vector; the classifier is then fitted on all of them.

    Args:
        train, test: ``(n, dim)`` and ``(t, dim)`` unit vectors.
        train_labels, test_labels: the class of each.
        seed: seed of the held-out vectors.

    Raises:
        UsageError: there are no vectors, or fewer than two classes.

    Source: Radford et al. 2021, section 3.2.
    """
    from sklearn.model_selection import train_test_split

    train_names, test_names = _as_text(train_labels), _as_text(test_labels)
    names, counts = np.unique(train_names, return_counts=True)
    _check(names, train_names, test_names)
    train, test = _lengthened(train), _lengthened(test)
    held_out = max(round(HELD_OUT_FRACTION * len(train)), len(names))
    best = 1.0
    if counts.min() > 1 and len(train) - held_out >= len(names):
        fit, chosen, fit_names, chosen_names = train_test_split(
            train, train_names, test_size=held_out, stratify=train_names, random_state=seed
        )
        accuracies = {c: _fitted(c, fit, fit_names).score(chosen, chosen_names) for c in REGULARISATIONS}
        best = max(accuracies, key=accuracies.__getitem__)
    return Accuracy.of(test_names, np.asarray(_fitted(best, train, train_names).predict(test)), train_names)


@dataclass(frozen=True)
class Shots:
    """Accuracy of a linear classifier that was given a few examples of each class, over several draws of them.

    Attributes:
        shots: examples of each class.
        mean, deviation: mean and standard deviation of the accuracy.

    Examples:
        >>> vectors, labels = np.repeat(np.eye(2), 8, axis=0), ["cup"] * 8 + ["hat"] * 8
        >>> [(found.shots, found.mean) for found in few_shot(vectors, labels, vectors, labels)]
        [(1, 1.0), (2, 1.0), (4, 1.0), (8, 1.0)]
    """

    shots: int
    mean: float
    deviation: float


def few_shot(
    train: np.ndarray, train_labels: Labels, test: np.ndarray, test_labels: Labels, seed: int = 0
) -> list[Shots]:
    """Fit logistic regression on 1, 2, 4, ... examples of each class, as many as the rarest class has, ten times each.

    Args:
        train, test: ``(n, dim)`` and ``(t, dim)`` unit vectors.
        train_labels, test_labels: the class of each.
        seed: seed of the draws.

    Raises:
        UsageError: there are no vectors, or fewer than two classes.
    """
    train_names, test_names = _as_text(train_labels), _as_text(test_labels)
    names, counts = np.unique(train_names, return_counts=True)
    _check(names, train_names, test_names)
    train, test = _lengthened(train), _lengthened(test)
    draws, curve = np.random.default_rng(seed), []
    for shots in [s for s in SHOTS if s <= counts.min()]:
        accuracies = []
        for _ in range(DRAWS):
            rows = np.concatenate(
                [draws.choice(np.flatnonzero(train_names == name), shots, replace=False) for name in names]
            )
            classifier = _fitted(1.0, train[rows], train_names[rows])
            accuracies.append(classifier.score(test, test_names))
        curve.append(Shots(shots, float(np.mean(accuracies)), float(np.std(accuracies))))
    return curve


def _lengthened(vectors: np.ndarray) -> np.ndarray:
    """Return the vectors at length sqrt(dim), where a component is about 1 and a given C means the same in all spaces."""
    return vectors * vectors.shape[1] ** 0.5


def _fitted(c: float, vectors: Any, names: Any) -> LogisticRegression:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=c, max_iter=2000).fit(vectors, names)


def _as_text(labels: Labels) -> np.ndarray:
    return np.array([str(label) for label in labels])


def _check(names: np.ndarray, train: np.ndarray, test: np.ndarray) -> None:
    if not len(test) or len(names) < 2:
        raise UsageError(
            f"A classifier needs training vectors of at least two classes and vectors to measure it on, got {len(train)}"
            f" of {len(names)} and {len(test)}."
        )
