"""Supervised heads: losses against loops, missing targets, prefixes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from drawn_batches import embeddings_of, gradient
from torch import Tensor

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.objectives import Classification, Matryoshka, MultiLabel, Objective, Regression
from multimodal.objectives.supervised import Head

NAN = math.nan
ROWS = {"image": [0, 1, 3], "text": [1, 2]}


def with_target(values: list[float] | list[list[float]]) -> Embeddings:
    return replace(embeddings_of(ROWS, [0, 1, 2, 3]), targets={"known": torch.tensor(values)})


def outputs(objective: Classification | MultiLabel | Regression, vectors: Tensor) -> list[list[float]]:
    weight, bias = objective.head.linear.weight.tolist(), objective.head.linear.bias.tolist()
    return [
        [sum(x * w for x, w in zip(v, ws, strict=True)) + b for ws, b in zip(weight, bias, strict=True)]
        for v in vectors.tolist()
    ]


def test_classification_is_the_cross_entropy_of_the_labelled_vectors() -> None:
    embeddings, objective = with_target([2, NAN, 0, 1]), Classification("known", classes=3, dim=4).double()
    of = {m: outputs(objective, v) for m, v in embeddings.vectors.items()}

    def entropy(logits: list[float], label: int) -> float:
        return math.log(sum(math.exp(x) for x in logits)) - logits[label]

    loss = objective(embeddings)
    image = (entropy(of["image"][0], 2) + entropy(of["image"][2], 1)) / 2
    text = entropy(of["text"][1], 0)
    assert {m: part.item() for m, part in loss.parts.items()} == pytest.approx({"image": image, "text": text})
    assert loss.total.item() == pytest.approx((image + text) / 2)
    loss.total.backward()
    assert gradient(embeddings.vectors["image"])[1].tolist() == [0] * 4


def test_multi_label_is_the_binary_cross_entropy_of_the_known_labels() -> None:
    labels = [[1, 0], [NAN, 1], [NAN, NAN], [0.25, NAN]]
    embeddings, objective = with_target(labels), MultiLabel("known", labels=2, dim=4).double()

    def entropy(logit: float, label: float) -> float:
        probability = 1 / (1 + math.exp(-logit))
        return -label * math.log(probability) - (1 - label) * math.log(1 - probability)

    means = []
    for modality, rows in ROWS.items():
        logits = outputs(objective, embeddings.vectors[modality])
        terms = [
            entropy(logits[i][k], labels[row][k])
            for i, row in enumerate(rows)
            for k in range(2)
            if not math.isnan(labels[row][k])
        ]
        means.append(sum(terms) / len(terms))
    assert objective(embeddings).total.item() == pytest.approx(sum(means) / 2)


@pytest.mark.parametrize("values", [[0.5, -1, NAN, 2], [[0.5], [-1], [NAN], [2]]], ids=["(n,)", "(n, 1)"])
def test_regression_is_the_mean_squared_error(values: list[float] | list[list[float]]) -> None:
    embeddings, objective = with_target(values), Regression("known", dim=4).double()
    image, text = (outputs(objective, v) for v in embeddings.vectors.values())
    of_image = sum((image[i][0] - t) ** 2 for i, t in enumerate([0.5, -1, 2])) / 3
    assert objective(embeddings).total.item() == pytest.approx((of_image + (text[0][0] + 1) ** 2) / 2)


def test_regression_of_several_numbers_skips_unknown_ones() -> None:
    embeddings = with_target([[1.0, NAN], [NAN, NAN], [0.0, 2.0], [NAN, NAN]])
    objective = Regression("known", dim=4, outputs=2).double()
    image, text = (outputs(objective, v) for v in embeddings.vectors.values())
    expected = ((image[0][0] - 1) ** 2 + (text[1][0] ** 2 + (text[1][1] - 2) ** 2) / 2) / 2
    assert objective(embeddings).total.item() == pytest.approx(expected)


def test_only_the_chosen_modalities_predict() -> None:
    objective = Classification("known", classes=3, dim=4, modalities=["text"]).double()
    assert set(objective(with_target([0, 1, 2, 0])).parts) == {"text"}
    assert (objective.named_modalities, objective.named_targets) == ({"text"}, {"known"})
    assert Classification("known", 3, 4).named_modalities == set()


OBJECTIVES: list[Callable[[], Objective]] = [
    lambda: Classification("known", classes=3, dim=4),
    lambda: MultiLabel("known", labels=1, dim=4),
    lambda: Regression("known", dim=4),
]


@pytest.mark.parametrize("make", OBJECTIVES)
@pytest.mark.parametrize("embeddings", [embeddings_of(ROWS, [0, 1, 2, 3]), with_target([NAN] * 4)], ids=["none", "nan"])
def test_without_targets_the_loss_and_its_gradients_are_zero(
    make: Callable[[], Objective], embeddings: Embeddings
) -> None:
    objective = make().double()
    loss = objective(embeddings)
    loss.total.backward()
    assert loss.total.item() == 0
    assert loss.parts == {}
    for tensor in (*embeddings.vectors.values(), *objective.parameters()):
        assert not gradient(tensor).any()


@pytest.mark.parametrize("values", [[0, 1, 2, 3], [-1, 0, 0, 0], [0.5, 0, 0, 0]])
def test_invalid_classes_are_rejected(values: list[float]) -> None:
    with pytest.raises(UsageError, match=r"Classification: target 'known' must be whole numbers in \[0, 3\)"):
        Classification("known", classes=3, dim=4).double()(with_target(values))


def test_invalid_labels_are_rejected() -> None:
    with pytest.raises(UsageError, match=r"MultiLabel: target 'known' must lie in \[0, 1\]"):
        MultiLabel("known", labels=1, dim=4).double()(with_target([0, 1, 2, NAN]))


def test_targets_of_another_width_are_rejected() -> None:
    with pytest.raises(UsageError, match="Target 'known' has 1 numbers per row, but the objective expects 2"):
        Regression("known", dim=4, outputs=2).double()(with_target([0, 1, 2, 3]))


def test_a_head_accepts_prefixes_of_the_vectors_and_rejects_longer_ones() -> None:
    head = Head(4, 3, "Test")
    vectors = torch.randn(2, 3)
    expected = vectors @ head.linear.weight[:, :3].T + head.linear.bias
    torch.testing.assert_close(head(vectors), expected)
    with pytest.raises(UsageError, match="Test: dim 4 is less than the width 5 of the vectors"):
        head(torch.randn(2, 5))
    with pytest.raises(UsageError, match="Test: the width 0 and the number of outputs 3 must be at least 1"):
        Head(0, 3, "Test")
    loss = Matryoshka(Classification("known", 3, dim=4).double(), [2, 4])(with_target([0, 1, 2, 0]))
    assert {"2/image", "4/text"} <= set(loss.parts)
