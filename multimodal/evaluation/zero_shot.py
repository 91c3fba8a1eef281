"""Zero-shot classification: a value gets the class whose description, in another modality, is nearest to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from multimodal.core.embedder import Embedder
from multimodal.core.errors import UsageError

TEMPLATES = ("{}",)  # the class's name alone
BLOCK = 2**22  # scores in memory at a time


def check_templates(templates: Sequence[str]) -> None:
    """Raise a ``UsageError`` if there is no template, or one has no ``{}`` or other fields."""
    if not templates:
        raise UsageError("Zero-shot classification needs a template, like 'a photo of a {}'.")
    for template in templates:
        if template.replace("{}", "").count("{") or template.count("{}") != 1:
            raise UsageError(f"The template {template!r} must contain {{}} once, for the class's name.")


def class_vectors(
    embedder: Embedder, classes: Sequence[str], templates: Sequence[str] = TEMPLATES, modality: str = "text"
) -> np.ndarray:
    """Return a vector for each class: the mean of its descriptions' vectors, scaled to unit length.

    Args:
        embedder: the model.
        classes: names of the classes.
        templates: descriptions, like "a photo of a {}", with ``{}`` for the class's name.
        modality: the modality of the descriptions.

    Returns:
        ``(classes, dim)`` float32 unit vectors.

    Raises:
        UsageError: there are fewer than two classes, or a template has no ``{}`` or other fields.

    Source: Radford et al. 2021, section 3.1.4.

    Examples:
        >>> from multimodal import create
        >>> embedder = Embedder({"text": create("text", "bag")}, dim=8)
        >>> embedder.fit_processors({"text": ["a red cup", "a blue hat"]})
        >>> class_vectors(embedder, ["cup", "hat"], ["a {}", "a blue {}"]).shape
        (2, 8)
    """
    if len(classes) < 2:
        raise UsageError(f"Zero-shot classification needs two classes, got {len(classes)}.")
    check_templates(templates)
    prompts = [template.replace("{}", name) for name in classes for template in templates]
    vectors = embedder.encode(batch_size=None, precision="float32", **{modality: prompts}).reshape(
        len(classes), len(templates), -1
    )
    mean = vectors.mean(axis=1)
    return mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class ZeroShot:
    """How well values got their class without having been trained for it.

    Attributes:
        accuracy, accuracy_at_5: fraction of the values whose class is the nearest, or one of the nearest 5.
        balanced: mean of the accuracy over the classes.
        confusion: ``(c, c)`` int64: how many values of the class of a row got the class of a column.
        classes: names of the classes, in the order of the rows.
        values: number of values.

    Examples:
        >>> found = zero_shot(np.eye(2), ["cup", "hat"], np.eye(2), ["cup", "hat"])
        >>> found.accuracy, found.confusion.tolist()
        (1.0, [[1, 0], [0, 1]])
    """

    accuracy: float
    accuracy_at_5: float
    balanced: float
    confusion: np.ndarray
    classes: tuple[str, ...]
    values: int


def zero_shot(
    vectors: np.ndarray, labels: Sequence[str], vectors_of_classes: np.ndarray, classes: Sequence[str]
) -> ZeroShot:
    """Give each vector the class that is nearest to it, and compare with its label.

    Ties count against the model: a class with as high a score as the right one ranks before it.

    Args:
        vectors: ``(n, dim)`` unit vectors, n at least 1.
        labels: the class of each.
        vectors_of_classes: ``(c, dim)`` unit vectors, as ``class_vectors`` returns them.
        classes: their names.

    Raises:
        UsageError: there are no vectors, or a label is not a class.
    """
    number = {name: i for i, name in enumerate(classes)}
    if unknown := sorted({str(label) for label in labels} - number.keys()):
        raise UsageError(f"There is no class {unknown[0]!r}, which is a label; the classes are {', '.join(classes)}.")
    if not len(vectors):
        raise UsageError("Zero-shot classification needs at least one value.")
    expected = np.array([number[str(label)] for label in labels])
    ranks, predicted = np.empty(len(vectors), np.int64), np.empty(len(vectors), np.int64)
    for start in range(0, len(vectors), step := max(1, BLOCK // len(classes))):
        part = slice(start, start + step)
        ranks[part], predicted[part] = _rank_classes(vectors[part] @ vectors_of_classes.T, expected[part])
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (expected, predicted), 1)
    present = np.unique(expected)
    return ZeroShot(
        accuracy=float((ranks == 1).mean()),
        accuracy_at_5=float((ranks <= 5).mean()),
        balanced=float(np.mean([(ranks[expected == c] == 1).mean() for c in present])),
        confusion=confusion,
        classes=tuple(classes),
        values=len(expected),
    )


def _rank_classes(scores: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rank of the right class, and the class that is found, of scores ``(n, c)``, which are changed."""
    row = np.arange(len(scores))
    own = scores[row, expected].copy()
    scores[row, expected] = -np.inf
    ranks = 1 + (scores >= own[:, None] - 1e-6).sum(axis=1)
    ranks[~np.isfinite(own)] = np.iinfo(np.int64).max  # a vector that is not finite has no class
    return ranks, np.where(ranks == 1, expected, scores.argmax(axis=1))
