"""The trained heads of an objective, wherever they are inside it, as the predictors of a saved model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from multimodal.core.predictors import Predictor
from multimodal.objectives.compose import Matryoshka
from multimodal.objectives.objective import Objective
from multimodal.objectives.supervised import TargetObjective


def target_objectives(objective: Objective) -> list[TargetObjective]:
    """Return the objectives with heads, in the order in which they are contained.

    Examples:
        >>> from multimodal.objectives import Classification, InfoNCE, Sum
        >>> [each.target for each in target_objectives(Sum({"a": InfoNCE(), "b": Classification("kind")}))]
        ['kind']
    """
    return [each for each in objective.modules() if isinstance(each, TargetObjective)]


def trained_predictors(objective: Objective, dim: int) -> dict[str, Predictor]:
    """Return copies of the heads: name -> predictor, on the CPU.

    The name is that of the target. If several heads predict it, the others' have the name of the objective appended.

    Args:
        objective: contains objectives with heads, or is one.
        dim: the width of the shared space.

    Examples:
        >>> from multimodal.objectives import Classification, Matryoshka, Sum
        >>> heads = {"a": Classification("kind", 3, 8), "b": Matryoshka(Classification("kind", 3, 8), [2, 4])}
        >>> {name: p.weight.shape for name, p in trained_predictors(Sum(heads), dim=8).items()}
        {'kind': (3, 8), 'kind b': (3, 4)}
    """
    predictors: dict[str, Predictor] = {}
    for path, each, width in _heads(objective, (), dim):
        name = each.target
        if name in predictors:
            name = " ".join([each.target, *path])
        weight, bias = (part.float().cpu().numpy().copy() for part in each.weights_in_units())
        names = each.names + tuple(map(str, range(len(each.names), len(bias))))
        modalities = tuple(each.modalities or ())
        weight = np.ascontiguousarray(weight[:, :width])
        predictors[name] = Predictor(each.target, each.kind, names, weight, bias, modalities)
    return predictors


def _heads(
    objective: Objective, path: tuple[str, ...], dim: int
) -> Iterator[tuple[tuple[str, ...], TargetObjective, int]]:
    """Yield each head with the names of the objectives around it, and the components of a vector that it has seen."""
    if isinstance(objective, TargetObjective):
        yield path, objective, dim
        return
    if isinstance(objective, Matryoshka):
        dim = min(dim, objective.dims[-1])
    for child in objective.children():
        if isinstance(child, Objective):
            yield from _heads(child, path, dim)
            continue
        for inner, grandchild in child.named_children():
            if isinstance(grandchild, Objective):
                yield from _heads(grandchild, (*path, inner), dim)
