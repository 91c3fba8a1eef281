"""Ensembles: several trained models as one, whose scores are the means of theirs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from inspect import Parameter, Signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from multimodal.core.encoder import Corruption, Encoder, Inputs, Processor
from multimodal.core.errors import UsageError
from multimodal.core.parts import Parts

if TYPE_CHECKING:
    from multimodal.core.embedder import Embedder

PREFIX = "member"  # of the names of inputs; torch.export takes a name that ends in _0 for one of several arguments


def ensemble(models: Sequence[Embedder], weights: Sequence[float] | None = None) -> Embedder:
    """Return one model of several: its vectors are theirs, one after the other, and its scores are the means of theirs.

    Models that err differently correct each other: those of other seeds, and more so those with other encoders. The result
    is as wide, and as slow, as all of them together. It is not trained further, and has neither their calibration nor their
    heads that predict targets.

    Args:
        models: at least two, of the same modalities; their widths may differ. They are copied.
        weights: how much the scores of each model count, above 0. None: each 1.

    Raises:
        UsageError: there are fewer than two models, their modalities differ, or the weights are not a positive number for
            each model.

    Examples:
        >>> from multimodal import Embedder, create
        >>> models = [Embedder({"text": create("text", "bag")}, dim) for dim in (8, 16)]
        >>> for model in models:
        ...     model.fit_processors({"text": ["a red cup"]})
        >>> cup, mug = ensemble(models).encode(text=["a red cup", "a blue mug"])
        >>> scores = [np.dot(*model.encode(text=["a red cup", "a blue mug"])) for model in models]
        >>> cup.shape, bool(np.isclose(cup @ mug, np.mean(scores), atol=1e-6))
        ((24,), True)
    """
    from multimodal.core.embedder import Embedder

    if not isinstance(models, Sequence) or not all(isinstance(model, Embedder) for model in models):
        raise UsageError("ensemble takes a list of models; for the folders of runs, use ensemble_runs.")
    if len(models) < 2:
        raise UsageError("An ensemble needs at least two models.")
    try:
        weights = [1.0] * len(models) if weights is None else [float(weight) for weight in weights]
    except (TypeError, ValueError) as error:
        raise UsageError(f"The weights of an ensemble are a list of numbers, got {weights!r}.") from error
    if len(weights) != len(models) or not all(weight > 0 for weight in weights) or not math.isfinite(sum(weights)):
        raise UsageError(f"An ensemble of {len(models)} models needs as many weights above 0, got {weights}.")
    modalities = models[0].modalities
    for number, model in enumerate(models[1:], start=2):
        if different := sorted({*modalities} ^ {*model.modalities}):
            raise UsageError(
                "The models of an ensemble need the same modalities; the first has"
                f" {', '.join(modalities)}, model {number} has {', '.join(model.modalities)}: they differ in {different[0]!r}."
            )
    encoders: dict[str, Encoder] = {}
    for modality in modalities:
        parts = [_part_of(model, modality) for model in models]
        members = [
            {"modality": modality, "weight": weight / sum(weights), "model": part.describe()}
            for part, weight in zip(parts, weights, strict=True)
        ]
        encoder = encoders[modality] = Ensemble(members)
        for member, part in zip(encoder.members, parts, strict=True):
            member.load_state_dict(part.state_dict())
    joined = Embedder(encoders, sum(model.dim for model in models), dict.fromkeys(modalities, "none"))
    return joined.to(models[0].device).eval()


def _part_of(model: Embedder, modality: str) -> Embedder:
    """Return the part of a model that embeds one modality; its modules are those of the model."""
    from multimodal.core.embedder import Embedder

    part = Embedder({modality: model.encoder(modality)}, model.dim, {modality: model.head_kinds[modality]})
    part.heads[modality] = model.heads[modality]
    if (owner := model.shared.get(modality, modality)) in model.lora:
        part.lora = {modality: model.lora[owner]}  # its matrices are in the encoder already
    if modality in model.centring:
        part.centring[modality] = model.centring[modality]
    return part


class Ensemble(Encoder):
    """The vectors of several models of one modality, one after the other; ``ensemble`` makes it. It is not trained.

    Args:
        members: for each model the ``modality``, its ``weight`` (all of them add up to 1) and the ``model``, as
            ``Embedder.describe`` describes it.

    Examples:
        >>> from multimodal import Embedder, create
        >>> model = Embedder({"text": create("text", "bag")}, dim=4)
        >>> model.fit_processors({"text": ["a red cup"]})
        >>> encoder = ensemble([model, model]).encoder("text")
        >>> encoder.width, [member.dim for member in encoder.members]
        (8, [4, 4])
    """

    def __init__(self, members: list[dict[str, Any]]) -> None:
        super().__init__()
        from multimodal.core.embedder import Embedder

        weights = [float(member["weight"]) for member in members]
        if not all(0 < weight <= 1 for weight in weights) or not math.isclose(sum(weights), 1, abs_tol=1e-6):
            raise UsageError(f"The weights of an ensemble are above 0 and add up to 1, got {weights}.")
        built = [Embedder.from_description(member["model"], Path("the ensemble")) for member in members]
        self.members: Any = nn.ModuleList(built)
        self.modalities = [member["modality"] for member in members]
        self.factors = [math.sqrt(weight) for weight in weights]  # a score has the factors of both vectors
        self.width = sum(member.dim for member in built)
        described = [member["model"]["encoders"][member["modality"]] for member in members]
        texts = [json.dumps([d["class"], d["settings"], d["processor"]], sort_keys=True) for d in described]
        first = {text: number for number, text in reversed([*enumerate(texts)])}
        self.processor = self._read = EnsembleProcessor(
            [model.encoder(modality).processor for model, modality in zip(built, self.modalities, strict=True)],
            [first[text] for text in texts],
        )
        self.requires_grad_(False)

    def _inputs_of(self, number: int) -> Iterable[tuple[str, Parameter]]:
        return self.members[number].encoder(self.modalities[number]).forward_signature().parameters.items()

    def forward_signature(self) -> Signature:
        parameters = [
            parameter.replace(name=f"{PREFIX}{number}_{name}", kind=Parameter.KEYWORD_ONLY)
            for number in self._read.distinct
            for name, parameter in self._inputs_of(number)
        ]
        return Signature(parameters)

    def forward(self, **inputs: Tensor) -> Tensor:
        """The inputs of each distinct processor -> the members' weighted vectors ``(n, width)``."""
        of_members = self._read.inputs_of_members(inputs)
        vectors = []
        for model, modality, factor, own in zip(self.members, self.modalities, self.factors, of_members, strict=True):
            vectors.append(factor * model.project(modality, model.features(modality, own)))
        return torch.cat(vectors, dim=1)


class EnsembleProcessor(Processor):
    """Reads a value for each member of an ensemble; members whose processors are the same share one item.

    Corruptions, drawings and examples of values are those of the first member's.

    Args:
        processors: the members' processors.
        same_as: for each member, the first member that has the same processor.

    Raises:
        UsageError: a text is a file for one member, and a value for another.

    Examples:
        >>> from multimodal import create
        >>> bag, words = create("text", "bag").processor, create("text", "bag", longest=0).processor
        >>> bag.fit(["a red cup"]), words.fit(["a red cup"])
        (None, None)
        >>> len(EnsembleProcessor([bag, bag, words], [0, 0, 2])("a red cup"))
        2
    """

    def __init__(self, processors: Sequence[Processor], same_as: Sequence[int]) -> None:
        self.distinct = {number: processors[number] for number in dict.fromkeys(same_as)}
        self.same_as = list(same_as)
        self.first = processors[0]
        self.reads_files = self.first.reads_files
        if any(processor.reads_files != self.reads_files for processor in processors):
            raise UsageError(
                "The models of an ensemble must read the same: a text is a file for one, and not for another."
            )

    def __call__(self, value: Any) -> tuple[Any, ...]:
        return tuple(processor(value) for processor in self.distinct.values())

    def process(self, values: Sequence[Any]) -> list[Any]:
        return list(zip(*(processor.process(values) for processor in self.distinct.values()), strict=True))

    def collate(self, items: Sequence[Any]) -> Inputs:
        columns = zip(self.distinct.items(), zip(*items, strict=True), strict=True)
        return {
            f"{PREFIX}{number}_{name}": tensor
            for (number, processor), column in columns
            for name, tensor in processor.collate(column).items()
        }

    def inputs_of_members(self, inputs: Mapping[str, Tensor]) -> list[Inputs]:
        """Return the inputs of each member, by the names that its own processor gives them.

        Args:
            inputs: what ``collate`` returned.
        """
        found: dict[int, Inputs] = {number: {} for number in self.distinct}
        for name, tensor in inputs.items():
            number, _, own = name.removeprefix(PREFIX).partition("_")
            found[int(number)][own] = tensor
        return [found[number] for number in self.same_as]

    def is_one_value(self, given: np.ndarray | Tensor | list[Any] | tuple[Any, ...]) -> bool:
        return self.first.is_one_value(given)

    def cost(self, item: Any) -> float:
        costs = [processor.cost(own) for processor, own in zip(self.distinct.values(), item, strict=True)]
        return sum(costs) / len(costs)

    def examples(self) -> list[Any]:
        return self.first.examples()

    def linear_features(self) -> Any | None:
        return self.first.linear_features()

    def neighbour_features(self) -> Any | None:
        return self.first.neighbour_features()

    def parts(self, value: Any) -> Parts | None:
        """Take a value apart as the members do; None if they take it apart differently."""
        of_members = [parts for processor in self.distinct.values() if (parts := processor.parts(value)) is not None]
        names = {tuple(parts.names) for parts in of_members}
        if len(of_members) < len(self.distinct) or len(names) > 1:
            return None
        return replace(of_members[0], without=lambda part: tuple(parts.without(part) for parts in of_members))

    def corruptions(self) -> Mapping[str, Corruption]:
        return self.first.corruptions()

    def drawing(self, value: Any) -> str | None:
        return self.first.drawing(value)
