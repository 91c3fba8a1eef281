"""The heads of objectives: their sizes from the training rows, and what is saved of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import UsageError
from multimodal.core.predictors import TargetSummary
from multimodal.objectives import Classification, InfoNCE, Matryoshka, ModalityDropout, MultiLabel, Regression, Sum
from multimodal.objectives.heads import target_objectives, trained_predictors
from multimodal.objectives.supervised import TargetObjective

CLASSES = TargetSummary.of([[0], [2], [1], [2]], ["cup", "jug", "pot"])
NUMBERS = TargetSummary.of([[100.0, 7.0], [300.0, 7.0], [float("nan"), 7.0]], [])


def test_sizes_and_names_follow_from_the_training_rows() -> None:
    for objective, summary, shape in (
        (Classification("t"), CLASSES, (3, 8)),
        (Classification("t"), TargetSummary.of([[0], [4]], []), (5, 8)),
        (MultiLabel("t"), TargetSummary.of([[0, 1], [1, 1]], ["new", "red"]), (2, 8)),
        (Regression("t"), NUMBERS, (2, 8)),
        (Classification("t", classes=4), CLASSES, (4, 8)),
        (Classification("t", dim=4), CLASSES, (3, 4)),
    ):
        objective.learn_sizes(8, summary, seed=0)
        assert objective.head.linear.weight.shape == shape
        assert objective.names == summary.names
    (saved,) = trained_predictors(Classification("t", classes=4, dim=8), 8).values()
    assert saved.names == ("0", "1", "2", "3")


def test_weights_depend_on_the_seed_alone_and_leave_the_generator() -> None:
    def weight(seed: int) -> Tensor:
        objective = Classification("t")
        objective.learn_sizes(8, CLASSES, seed)
        return objective.head.linear.weight

    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    first = weight(1)
    assert torch.random.get_rng_state().equal(state)
    torch.manual_seed(5)
    assert weight(1).equal(first)
    assert not weight(2).equal(first)


def test_a_head_that_was_given_its_sizes_keeps_its_weights() -> None:
    objective = Classification("t", classes=3, dim=8)
    before = objective.head.linear.weight
    objective.learn_sizes(8, CLASSES, seed=0)
    assert objective.head.linear.weight is before


@pytest.mark.parametrize(
    ("objective", "summary", "message"),
    [
        (Classification("t"), None, "number of outputs for the target 't' is not known"),
        (Classification("t", classes=2), CLASSES, "2 outputs are too few for the 3 names"),
        (Classification("t"), TargetSummary.of([[-1]], []), "classes are names, or whole numbers"),
        (Classification("t"), TargetSummary.of([[1e9]], []), "classes are names, or whole numbers"),
        (Classification("t"), NUMBERS, "has 2 numbers per row"),
        (Classification("t"), TargetSummary.of([[1]], [], complete=False), "are streamed"),
        (Regression("t"), CLASSES, "has names, like 'cup'; it needs numbers"),
        (Regression("t", standardise=True, dim=8), None, "standardise needs training rows"),
    ],
    ids=lambda value: "" if not isinstance(value, str) else value[:20],
)
def test_sizes_that_cannot_be_known_are_an_error(
    objective: TargetObjective, summary: TargetSummary | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        objective.learn_sizes(8, summary, seed=0)


def test_without_a_trainer_an_unknown_size_is_named() -> None:
    rows = torch.arange(2)
    batch = Embeddings({"text": torch.eye(2)}, {"text": rows}, groups=rows, targets={"t": torch.tensor([0.0, 1.0])})
    for objective in (Classification("t"), MultiLabel("t"), Regression("t")):
        with pytest.raises(UsageError, match=f"{type(objective).__name__}: its sizes are inferred"):
            objective(batch)


def test_standardised_regression_is_saved_in_the_targets_units() -> None:
    torch.manual_seed(0)
    objective = Regression("t", standardise=True)
    objective.learn_sizes(4, NUMBERS, seed=0)
    vectors = torch.nn.functional.normalize(torch.randn(3, 4), dim=1)
    rows, numbers = torch.arange(3), torch.tensor([[100.0, 7.0], [250.0, 8.0], [float("nan"), 6.0]])
    loss = objective(Embeddings({"text": vectors}, {"text": rows}, groups=rows, targets={"t": numbers}))
    (saved,) = trained_predictors(objective, 4).values()
    predicted = saved(vectors.numpy()).values
    # by hand: mean (200, 7), deviation (100, and 1 where all are equal)
    errors = (predicted - numbers.numpy()) / np.array([100.0, 1.0])
    assert loss.total.item() == pytest.approx(float(np.nanmean(errors**2)), rel=1e-4)
    raw = objective.head(vectors).detach().numpy()
    np.testing.assert_allclose(predicted, raw * [100.0, 1.0] + [200.0, 7.0], rtol=1e-5)


def test_every_head_is_found_with_the_components_that_it_has_seen() -> None:
    def head(outputs: int) -> Classification:
        return Classification("kind", classes=outputs, dim=8)

    objective = Sum({
        "match": InfoNCE(),
        "a": ModalityDropout(head(2)),
        "b": Matryoshka(Sum({"inner": head(3), "size": Regression("size", dim=8)}), [2, 4]),
    })  # fmt: skip
    assert [each.target for each in target_objectives(objective)] == ["kind", "kind", "size"]
    saved = trained_predictors(objective, 8)
    assert {name: (p.target, p.weight.shape) for name, p in saved.items()} == {
        "kind": ("kind", (2, 8)),
        "kind b inner": ("kind", (3, 4)),
        "size": ("size", (1, 4)),
    }
    before = saved["kind"].weight.copy()
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.zero_()
    assert np.array_equal(saved["kind"].weight, before)  # a copy
