"""Drift: do two sets of vectors come from one population?

1. ``vector_sets`` reads both, at most one row of each unit (group, product, user).
2. For each modality, the sets are compared twice: all units, and where some are in both sets, whether these moved.
3. With ``where``, so is each slice of the rows.
4. All p-values are combined into one, by Bonferroni's correction; half of the level is for slices if there are any. So at most
   a fraction ``alpha`` of comparisons without drift raise an alarm.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multimodal.core.arguments import check_types
from multimodal.core.errors import MultimodalError, UsageError, suggest
from multimodal.core.files import atomic_folder
from multimodal.core.progress import progress
from multimodal.monitor.drift_page import drift_page
from multimodal.monitor.drift_result import Drift, ModalityDrift
from multimodal.monitor.measures.neighbours import distances_to_reference, outside_shares
from multimodal.monitor.measures.permutations import bonferroni
from multimodal.monitor.two_samples import PERMUTATIONS, compare_sets
from multimodal.monitor.vector_sets import ALONE, Vectors, VectorSet, read_vectors

MIN_ROWS = 20  # of each set
MAX_ROWS = 1000
MAX_SLICES = 20  # values of a column
MAX_PERMUTATIONS = 20_000
PRECISION = 10  # the level of one test is at least this many times the smallest p-value
LISTED = 20  # samples
UNMOVED = 0.02  # distance of two vectors of one thing that bfloat16 or int8 explains; their cosine is 0.9998
SLICE_SAMPLE = 10  # times max_rows are read, where slices are compared
MARKER = "drift.json"


def drift(
    reference: str | Path | VectorSet,
    current: str | Path | VectorSet,
    model: str | Path | None = None,
    *,
    where: Sequence[str] = (),
    alpha: float = 0.05,
    max_rows: int = MAX_ROWS,
    seed: int = 0,
    out: str | Path | None = None,
) -> Drift:
    """Find whether two sets of vectors come from one population.

    Args:
        reference: folder of embeddings, of an index or of a log of queries; with a model, also the name of a table.
        current: the same, of what is to be watched.
        model: run or exported model, which embeds tables. None: there are none.
        where: columns of the metadata, whose values are slices that are compared by themselves.
        alpha: the fraction of comparisons without drift that raise an alarm, in (0, 1).
        max_rows: units of each set that are compared, for each modality and slice.
        seed: of the choice of rows, and of the permutations.
        out: folder to which ``drift.json`` and the page ``drift.html`` are written. None: nothing is written.

    Raises:
        UsageError: a set is a table and there is no model, the sets have no modality in common, a column is unknown, or an
            argument is wrong.
        MultimodalError: a set cannot be read, or the sets are of different models.
    """
    checked = {"where": where, "alpha": alpha, "max_rows": max_rows, "seed": seed}
    check_types("drift", drift, checked)
    if not 0 < alpha < 1 or max_rows < MIN_ROWS or isinstance(where, str):
        raise UsageError(
            f"drift() takes an alpha between 0 and 1, max_rows of at least {MIN_ROWS} and a list of columns."
        )
    bound = max_rows * (SLICE_SAMPLE if where else 1)
    sets = [
        given if isinstance(given, VectorSet) else read_vectors(given, model, max_rows=bound, seed=seed)
        for given in (reference, current)
    ]
    result = compare_vector_sets(*sets, where=where, alpha=alpha, max_rows=max_rows, seed=seed)
    if out is not None:
        page = drift_page(result, sets[1], model)
        with atomic_folder(Path(out), MARKER) as folder:
            (folder / MARKER).write_text(json.dumps(result.to_json(), indent=1), encoding="utf-8")
            (folder / "drift.html").write_text(page, encoding="utf-8")
    return result


def compare_vector_sets(
    reference: VectorSet,
    current: VectorSet,
    *,
    where: Sequence[str] = (),
    alpha: float = 0.05,
    max_rows: int = MAX_ROWS,
    seed: int = 0,
    permutations: int | None = None,
) -> Drift:
    """Compare two sets that are in memory.

    Args:
        reference: the reference.
        current: what is to be watched.
        where, alpha, max_rows, seed: see ``drift``.
        permutations: number of random assignments of each test. None: as many as the level of each test asks for, at least 999.

    Raises:
        UsageError: the sets have no modality in common with 20 units in each, or no row has a column of ``where``.
        MultimodalError: the sets are of different models.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> def made(shift: float) -> VectorSet:
        ...     vectors = rng.standard_normal((100, 8)).astype(np.float32) + shift * np.eye(8, dtype=np.float32)[0]
        ...     vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        ...     names = np.array([f"#{n}" for n in range(100)])
        ...     return VectorSet("made", "f" * 64, {"text": Vectors(vectors, names, names, np.array(["{}"] * 100))})
        >>> compare_vector_sets(made(0), made(0)).drifted, compare_vector_sets(made(0), made(2)).drifted
        (False, True)
    """
    if reference.fingerprint != current.fingerprint:
        raise MultimodalError(
            f"{reference.name} and {current.name} hold vectors of different models ({reference.fingerprint[:12]} and"
            f" {current.fingerprint[:12]}), which cannot be compared; embed both with one model."
        )
    pairs: dict[tuple[str, ...], tuple[Vectors, Vectors]] = {}
    left_out: dict[str, str] = {}
    for modality in dict.fromkeys([*reference.modalities, *current.modalities]):
        both = [of.modalities.get(modality) for of in (reference, current)]
        if both[0] is None or both[1] is None:
            left_out[modality] = f"only {(reference if both[1] is None else current).name} has it"
            continue
        if both[0].vectors.shape[1] != both[1].vectors.shape[1]:
            widths = " and ".join(str(of.vectors.shape[1]) for of in both if of is not None)
            raise MultimodalError(f"The {modality} vectors have different widths, {widths}.")
        _add(pairs, left_out, (modality,), both[0], both[1], max_rows)
    modalities = [name for (name,) in pairs]
    if not modalities:
        raise UsageError(
            "Nothing can be compared: " + "; ".join(f"{name}: {why}" for name, why in left_out.items()) + "."
        )
    for column in where:
        for modality in modalities:
            _add_slices(pairs, left_out, column, modality, reference.modalities[modality], current.modalities[modality])
        if not any(name[1:2] == (column,) for name in pairs):
            known = sorted(
                {c for text in reference.modalities[modalities[0]].metadata for c in json.loads(text or "{}")}
            )
            if column not in known:
                raise UsageError(f"No row of {reference.name} has {column!r}.{suggest(column, known)}")
    if permutations is None:
        tests = 2 * len(pairs) * (2 if len(pairs) > len(modalities) else 1)
        permutations = min(MAX_PERMUTATIONS, max(PERMUTATIONS, int(np.ceil(PRECISION * tests / alpha))))
    compared: dict[tuple[str, ...], ModalityDrift] = {}
    with progress("Comparing", len(pairs), "comparisons") as advance:
        for name, (of_reference, of_current) in pairs.items():
            rng = np.random.default_rng([seed, len(compared)])
            first, second = (of.take(np.arange(min(len(of), max_rows))) for of in (of_reference, of_current))
            compared[name] = compare_modality(first, second, rng, permutations)
            advance(1)
    p = [
        bonferroni(_p_values([f for name, f in compared.items() if (len(name) > 1) == sliced]))
        for sliced in (False, True)
    ]
    slices: dict[str, dict[str, dict[str, ModalityDrift]]] = {column: {} for column in where}
    for name, found in compared.items():
        if len(name) > 1:
            slices[name[1]].setdefault(name[2], {})[name[0]] = found
    return Drift(
        bonferroni(p) if len(compared) > len(modalities) else p[0],
        alpha,
        {modality: compared[modality,] for modality in modalities},
        slices,
        reference.name,
        current.name,
        left_out,
    )


def compare_modality(
    reference: Vectors, current: Vectors, rng: np.random.Generator, permutations: int = PERMUTATIONS
) -> ModalityDrift:
    """Compare the vectors of one modality.

    Args:
        reference: of the reference, at least 20.
        current: of what is to be watched, at least 20.
        rng: the source of randomness.
        permutations: number of random assignments of each test.
    """
    place_of = {unit: place for place, unit in enumerate(reference.units) if not unit.startswith(ALONE)}
    same = np.array([place_of.get(unit, -1) for unit in current.units], np.int64)
    both = np.flatnonzero(same >= 0)
    all_shared = len(both) == len(current) == len(reference)
    shared = units = None
    if len(both) >= MIN_ROWS:
        before, after = reference.vectors[same[both]], current.vectors[both]
        moved = np.linalg.norm(after - before, axis=1) > UNMOVED
        after = np.where(moved[:, None], after, before)
        shared = compare_sets(before, after, rng, paired=True, permutations=permutations if moved.any() else 0)
    if not all_shared or shared is None:
        units = compare_sets(reference.vectors, current.vectors, rng, same=same, permutations=permutations)
    own = distances_to_reference(reference.vectors, reference.vectors, np.arange(len(reference)))
    distances = distances_to_reference(current.vectors, reference.vectors, same)
    farthest = np.argsort(-distances, kind="stable")[:LISTED]
    usual = max(float(np.quantile(own, 0.95)), 1e-6)
    return ModalityDrift(
        units,
        shared,
        outside_shares(distances, own),
        bonferroni([found.p_value for found in (units, shared) if found is not None]),
        [{"key": str(current.keys[row]), "distance": float(distances[row] / usual)} for row in farthest],
        _most_moved(reference, current, both, same),
    )


def _most_moved(reference: Vectors, current: Vectors, both: np.ndarray, same: np.ndarray) -> list[dict[str, Any]]:
    """Return the rows with equal keys whose vectors differ most."""
    equal = both[current.keys[both] == reference.keys[same[both]]]
    cosines = np.einsum("ij,ij->i", current.vectors[equal], reference.vectors[same[equal]])
    moved = [place for place in np.argsort(cosines, kind="stable")[:LISTED] if cosines[place] < 1 - UNMOVED**2 / 2]
    return [{"key": str(current.keys[equal[place]]), "cosine": float(cosines[place])} for place in moved]


def _add(
    pairs: dict[tuple[str, ...], tuple[Vectors, Vectors]],
    left_out: dict[str, str],
    name: tuple[str, ...],
    reference: Vectors,
    current: Vectors,
    max_rows: int,
) -> None:
    """Add a pair that is large enough to compare; else say why it is left out."""
    if min(len(reference), len(current)) >= MIN_ROWS:
        pairs[name] = (reference, current)
    else:
        counts = f"{len(reference):,} and {len(current):,}"
        left_out[", ".join(name)] = f"{counts} units, at least {MIN_ROWS} of each set are needed"


def _add_slices(
    pairs: dict[tuple[str, ...], tuple[Vectors, Vectors]],
    left_out: dict[str, str],
    column: str,
    modality: str,
    reference: Vectors,
    current: Vectors,
) -> None:
    cells = [of.column(column) for of in (reference, current)]
    values: dict[str, int] = {}
    for cell in (*cells[0], *cells[1]):
        if cell is not None:
            values[cell] = values.get(cell, 0) + 1
    for value in sorted(values, key=lambda value: (-values[value], value))[:MAX_SLICES]:
        of_reference, of_current = (
            of.take(np.flatnonzero([cell == value for cell in of_cells]))
            for of, of_cells in zip((reference, current), cells, strict=True)
        )
        _add(pairs, left_out, (modality, column, value), of_reference, of_current, MAX_ROWS)


def _p_values(found: Sequence[ModalityDrift]) -> list[float]:
    return [comparison.p_value for of_modality in found for comparison in of_modality.comparisons]
