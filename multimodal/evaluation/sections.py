"""The sections of an evaluation, by name: each measures one side of a space, and says how it is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from multimodal.core.errors import UsageError, suggest
from multimodal.evaluation.calibration_measures import CalibrationMeasures
from multimodal.evaluation.class_measures import ClassMeasures, Labelled
from multimodal.evaluation.class_retrieval import class_retrieval
from multimodal.evaluation.evaluated import Evaluated
from multimodal.evaluation.faults import Faults, RowViews, suspect
from multimodal.evaluation.fused import MissingModalities
from multimodal.evaluation.geometry import modality_means
from multimodal.evaluation.grid import Grid
from multimodal.evaluation.neighbour_tests import NeighbourTests, run_neighbour_test
from multimodal.evaluation.robustness import Robustness
from multimodal.evaluation.sizes import Sizes
from multimodal.evaluation.slices import Slices
from multimodal.evaluation.space import Space
from multimodal.evaluation.zero_shot import class_vectors

PROMPTED = "text"  # the modality of the texts that describe classes


class Section(Protocol):
    """The result of a section: a dataclass, whose fields become JSON, that has tables.

    It may also have ``figures() -> list[Figure]``: the charts of the report's page.
    """

    def grids(self) -> list[Grid]:
        """Return the tables of a report."""
        ...


@dataclass(frozen=True)
class SectionKind:
    """A section that can be asked for.

    Attributes:
        measure: from an evaluation to its result; a ``UsageError`` says why these data do not have it.
        describes: what it measures, for the help.
        needs: the argument of ``evaluate`` that asks for it; None: it is asked for by name.
        is_quick: whether it takes a small part of the time of the embedding, so that a report has it by default.
    """

    measure: Callable[[Evaluated], Section]
    describes: str
    needs: str | None = None
    is_quick: bool = True


def _measure_space(evaluated: Evaluated) -> Space:
    training = evaluated.training_vectors
    return Space.of(evaluated.queries.embeddings, None if training is None else modality_means(training.embeddings))


def _measure_classes(evaluated: Evaluated) -> ClassMeasures:
    label, templates = evaluated.settings["label"], evaluated.settings["templates"]
    measured = Labelled(evaluated.queries.embeddings, evaluated.queries.texts(label))
    train = None
    if (training := evaluated.training_vectors) is not None:
        try:
            train = Labelled(training.embeddings, training.texts(label))
        except UsageError as error:
            evaluated.notes.append(f"Classifiers are left out: {error}")
    known = [labelled.labels for labelled in (measured, train) if labelled is not None]
    names = sorted({name for labels in known for name in labels if name is not None})
    prompts = None
    if PROMPTED not in evaluated.embedder.modalities:
        evaluated.notes.append(f"Zero-shot classification is left out: the model has no modality {PROMPTED!r}.")
    elif len(names) > 1:
        prompts = PROMPTED, class_vectors(evaluated.embedder, names, templates, PROMPTED), names
    found = class_retrieval(
        measured.embeddings, measured.labels, evaluated.pool.embeddings, evaluated.pool.texts(label)
    )
    return ClassMeasures.of(label, measured, train, prompts, found)


@dataclass(frozen=True)
class AllSlices:
    """The slices of several columns.

    Attributes:
        columns: column -> its slices.

    Examples:
        >>> AllSlices({"colour": Slices("colour", {}, left_out=0, missing=3)}).grids()
        []
    """

    columns: dict[str, Slices]

    def grids(self) -> list[Grid]:
        """Return the tables of all columns."""
        return [grid for slices in self.columns.values() for grid in slices.grids()]


def _measure_slices(evaluated: Evaluated) -> AllSlices:
    queries = evaluated.queries
    return AllSlices(
        {
            column: Slices.of(column, queries.texts(column), evaluated.searched_for, evaluated.by_query)
            for column in evaluated.settings["slices"]
        }
    )


def _measure_calibration(evaluated: Evaluated) -> CalibrationMeasures:
    calibration = evaluated.embedder.calibration
    if calibration is not None and calibration.is_made_of(
        evaluated.queries.samples.fingerprint, evaluated.settings.get("split", "all")
    ):
        evaluated.notes.append(
            "The model was calibrated on rows of this split, so calibrations of the other queries are measured in its place."
        )
        calibration = None
    return CalibrationMeasures.of(evaluated.queries.embeddings, evaluated.pool.embeddings, calibration)


def _measure_sizes(evaluated: Evaluated) -> Sizes:
    return Sizes.of(evaluated.queries.embeddings, evaluated.pool.embeddings)


def _measure_missing(evaluated: Evaluated) -> MissingModalities:
    return MissingModalities.of(evaluated.queries.embeddings, evaluated.pool.embeddings)


def _measure_robustness(evaluated: Evaluated) -> Robustness:
    queries = evaluated.queries
    rows = np.array(sorted({int(key) for key in queries.embeddings.keys}))
    return Robustness.of(evaluated.embedder, queries.samples, rows, evaluated.pool.embeddings)


def _measure_faults(evaluated: Evaluated) -> Faults:
    samples, views = evaluated.queries.samples, RowViews.of(evaluated.queries.embeddings)
    rows = {row for found in views.rows.values() for row in found.tolist()}
    suspicions, notes = suspect(views, views, views, {row: int(samples.group_numbers[row]) for row in rows})
    named = {row for s in suspicions for row in (s.row, s.other_row)}
    return Faults(suspicions, {row: samples.key_of(row) for row in named}, {}, tuple(notes))


def _measure_neighbours(evaluated: Evaluated) -> NeighbourTests:
    return NeighbourTests([run_neighbour_test(evaluated.embedder, f) for f in evaluated.settings["neighbours"]])


SECTIONS: dict[str, SectionKind] = {
    "space": SectionKind(_measure_space, "how the space is used: rank, hubs, the modality gap, all modalities at once"),
    "classes": SectionKind(_measure_classes, "clusters, classifiers and zero-shot of a column of classes", "label"),
    "slices": SectionKind(_measure_slices, "retrieval by the values of columns", "slices"),
    "calibration": SectionKind(
        _measure_calibration, "whether scores mean what they should, and what a precision costs"
    ),
    "sizes": SectionKind(_measure_sizes, "prefixes, int8 and binary vectors: bytes, recall, milliseconds"),
    "missing": SectionKind(_measure_missing, "what each modality adds to a fused query, and what missing ones cost"),
    "robustness": SectionKind(
        _measure_robustness, "retrieval with noisy, blurred, cropped, misspelled, incomplete queries", is_quick=False
    ),
    "faults": SectionKind(_measure_faults, "rows that may be wrong pairs, or one item under two names", is_quick=False),
    "neighbours": SectionKind(_measure_neighbours, "triplets, graded pairs or analogies of a file", "neighbours"),
}
BY_NAME = [name for name, kind in SECTIONS.items() if kind.needs is None]


def chosen_sections(names: str | Iterable[str] | None, given: Sequence[str], default: bool) -> list[str]:
    """Return the sections to measure, in their order.

    Args:
        names: those that are asked for by name; "all": all of them; None: the default.
        given: the arguments of ``evaluate`` that were given, some of which ask for a section.
        default: whether the quick ones are measured if none is named.

    Raises:
        UsageError: there is no such section, or it is asked for by an argument of its own.

    Examples:
        >>> chosen_sections("space", ["label"], default=False)
        ['space', 'classes']
    """
    if names is None:
        names = [name for name in BY_NAME if SECTIONS[name].is_quick] if default else []
    elif isinstance(names, str):
        names = BY_NAME if names == "all" else [names]
    names = list(names)
    for name in names:
        if name not in SECTIONS:
            raise UsageError(f"There is no section {name!r}.{suggest(name, [*BY_NAME, 'all'])}")
        if (needs := SECTIONS[name].needs) is not None and needs not in given:
            raise UsageError(f"The section {name!r} needs the argument {needs!r}.")
    asked_for = {*names, *(name for name, kind in SECTIONS.items() if kind.needs is not None and kind.needs in given)}
    return [name for name in SECTIONS if name in asked_for]
