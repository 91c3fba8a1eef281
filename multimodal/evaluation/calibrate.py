"""Calibrate scores on validation rows: fit how confident a hit may be, and count how often such hits are right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multimodal.core.calibration import JUDGED, Calibration, ConfidenceBins, PairCalibration, confidences
from multimodal.core.embedder import Embedder
from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.files import check_folder
from multimodal.core.hardware import fast_device
from multimodal.core.model_folder import model_folder
from multimodal.core.rejects import Rejects
from multimodal.data.run_data import load_run_data, load_training_rows
from multimodal.evaluation.evaluated import embed_rows, embed_training_rows
from multimodal.evaluation.geometry import modality_means
from multimodal.evaluation.grid import Grid, number
from multimodal.evaluation.scored_hits import ScoredHits, scored_hits

FOLDS = 5
ERROR_BINS = 15
PRECISIONS = (0.5, 0.8, 0.9, 0.95)
FEWEST_QUERIES = 20  # of different groups
MOST_FITTED = 5_000  # queries to which the softmax is fitted


def calibrate(
    run: str | Path,
    data: Any = None,
    *,
    split: str | list[str] | None = None,
    pool: str | list[str] | None = None,
    close_gap: bool = False,
    out: str | Path | None = None,
    **settings: Any,
) -> Calibration:
    """Calibrate a model's scores on rows that it was not trained on, and save the calibration with the model.

    ``Index.search(..., min_precision=0.9)`` and ``multimodal search --min_precision 0.9`` use it.

    Args:
        run: folder of a run or of a saved model.
        data: see ``evaluate``.
        split: split of the queries. None: the run's validation split; of another table, all rows.
        pool: split to search, or "all"; the more it is like the index that will be searched, in kind and size, the truer are
            the probabilities. None: ``split``.
        close_gap: first subtract each modality's mean over training rows from its vectors, which makes another model: it
            needs a folder of its own, and indexes are to be built with it again.
        out: the folder to write the model to. None: it replaces the model of the run.
        **settings: keys of ``data:`` that replace the configured ones.

    Raises:
        MultimodalError: the model or the data cannot be read, or no pair of modalities has enough queries.
        UsageError: there is no such split, or no folder is named for another model.
    """
    if close_gap and out is None:
        raise UsageError("With the gap closed it is another model, of other vectors: name a folder for it, by out.")
    if out is not None:
        check_folder(out)
    folder = Path(run)
    embedder = Embedder.from_pretrained(folder).to(fast_device())
    of_run = load_run_data(folder, data, settings)
    samples = of_run.samples
    if close_gap:
        training = embed_training_rows(embedder, *load_training_rows(folder, of_run))
        embedder.close_gap(modality_means(training.embeddings))
    split = split or ("all" if of_run.is_another_table else of_run.validation_split)
    splits = (split,) if isinstance(split, str) else tuple(split)
    trained = {of_run.train_split} if isinstance(of_run.train_split, str) else {*of_run.train_split}
    if not of_run.is_another_table and trained & {*splits}:
        raise UsageError(
            f"The model was trained on {', '.join(sorted(trained & {*splits}))}, where it scores better than on other rows;"
            " calibrate it on rows that it has not seen."
        )
    rows = samples.rows(split)
    searched = rows if pool is None else samples.rows(pool)
    rejects = Rejects(of_run.max_rejects, len(samples), None, samples.key_of)
    queries = candidates = embed_rows(embedder, samples, rows, rejects).embeddings
    if not np.array_equal(searched, rows):
        candidates = embed_rows(embedder, samples, searched, rejects, "Embedding the pool").embeddings
    found = calibrate_embeddings(queries, candidates)
    if not found.pairs:
        most = max((len(torch.unique(queries.groups_of(a))) for a in queries.modalities), default=0)
        advice = "Train the model longer, or calibrate it on other rows by --split or --data."
        if most < FEWEST_QUERIES:
            advice = "Name a split with more rows by --split, or another table by --data; rows of one group count once."
        raise MultimodalError(
            f"Nothing can be calibrated in {split!r}: a pair of modalities needs {FEWEST_QUERIES} queries of different"
            f" groups, some of which find their row, and there are {most:,}. {advice}"
        )
    found = embedder.calibration = replace(found, table=samples.fingerprint, splits=splits)
    embedder.to("cpu").save_pretrained(model_folder(folder) if out is None else out)
    return found


def calibrate_embeddings(queries: Embeddings, candidates: Embeddings | None = None, seed: int = 0) -> Calibration:
    """Calibrate all ordered pairs of modalities that have enough queries and a right hit.

    Args:
        queries: embeddings to search for.
        candidates: embeddings to search in; None: the queries.
        seed: see ``scored_hits``.
    """
    candidates = queries if candidates is None else candidates
    found = {}
    for a, b in permutations(queries.modalities, 2):
        if b in candidates.vectors and len(torch.unique(queries.groups_of(a))) >= FEWEST_QUERIES:
            hits = scored_hits(queries, candidates, a, b, seed=seed)
            if hits.is_right[:, :JUDGED].any():
                found[f"{a}->{b}"] = replace(fit_pair(hits), error=held_out_error(hits))
    return Calibration(found)


def fit_pair(hits: ScoredHits) -> PairCalibration:
    """Fit the calibration of one direction, by maximum likelihood; its error is not measured.

    Args:
        hits: of at least one query.
    """
    from scipy.optimize import minimize

    drawn = hits
    if len(hits.scores) > MOST_FITTED:
        drawn = hits.take(np.random.default_rng(0).choice(len(hits.scores), MOST_FITTED, replace=False))
    right_found, place = drawn.is_right.any(axis=1), drawn.is_right.argmax(axis=1)

    def loss(parameters: np.ndarray) -> float:
        found = confidences(drawn.scores, float(np.exp(min(parameters[0], 10.0))), float(parameters[1]))
        of_truth = np.where(right_found, found[np.arange(len(found)), place], 1 - found.sum(axis=1))
        return float(-np.log(np.maximum(of_truth, 1e-12)).mean())

    best = minimize(loss, [np.log(20.0), float(np.median(drawn.scores[:, 0]))], method="Nelder-Mead").x
    sharpness, no_answer = float(np.exp(min(best[0], 10.0))), float(best[1])
    judged = confidences(hits.scores, sharpness, no_answer)[:, :JUDGED]
    is_hit = np.isfinite(hits.scores[:, :JUDGED])
    is_hit[:, 0] = True  # a query for which nothing is found has a wrong first hit
    first, others = (
        ConfidenceBins.of(judged[:, part][is_hit[:, part]], hits.is_right[:, :JUDGED][:, part][is_hit[:, part]])
        if is_hit[:, part].any()
        else None
        for part in (slice(0, 1), slice(1, None))
    )
    assert first is not None
    return PairCalibration(sharpness, no_answer, first, others, hits.pool, len(hits.scores), float("nan"))


def folds(hits: ScoredHits, seed: int = 0) -> Iterator[tuple[PairCalibration, ScoredHits]]:
    """Yield the calibration of the other groups' queries, and the queries, for each of ``FOLDS`` parts of the groups.

    Args:
        hits: of one direction.
        seed: divides the groups into parts.
    """
    names, numbers = np.unique(hits.groups, return_inverse=True)
    part = np.random.default_rng(seed).permutation(len(names))[numbers] % FOLDS
    for fold in range(FOLDS):
        if (part == fold).any() and (part != fold).any():
            yield fit_pair(hits.take(part != fold)), hits.take(part == fold)


def held_out_error(hits: ScoredHits, seed: int = 0) -> float:
    """Return the expected calibration error of the first hits, each by a calibration of other groups' queries.

    Args:
        hits: of one direction.
        seed: divides the groups into parts.
    """
    parts = [(fitted.probability(rest.scores)[:, 0], rest.is_right[:, 0]) for fitted, rest in folds(hits, seed)]
    return calibration_error(np.concatenate([p for p, _ in parts]), np.concatenate([right for _, right in parts]))


def calibration_error(probabilities: np.ndarray, is_right: np.ndarray) -> float:
    """Return the expected calibration error: the mean, over hits, of how far a bin's mean probability is from the truth.

    Args:
        probabilities: ``(h,)`` in [0, 1], h at least 1.
        is_right: ``(h,)`` bool.

    Returns:
        The error in [0, 1], with bins of equal width.

    Source: Guo et al. 2017, equation 3.

    Examples:
        >>> round(calibration_error(np.full(4, 0.75), np.array([True, True, True, False])), 6)
        0.0
    """
    bins = np.minimum((probabilities * ERROR_BINS).astype(int), ERROR_BINS - 1)
    differences = np.bincount(bins, weights=probabilities - is_right, minlength=ERROR_BINS)
    return float(np.abs(differences).sum() / len(probabilities))


def calibration_grid(calibration: Calibration) -> Grid:
    """Return the table of a calibration: the cut-offs for some precisions, and the error on held-out queries.

    Args:
        calibration: the calibration.
    """
    rows = [
        [
            pair.replace("->", " -> "),
            *(number(cut, 2) if np.isfinite(cut := found.cut_off(p)) else "-" for p in PRECISIONS),
            number(100 * found.error, 1),
            f"{found.queries:,}",
            f"{found.pool:,}",
        ]
        for pair, found in calibration.pairs.items()
    ]
    columns = ["query -> found", *(f"{p:g}" for p in PRECISIONS), "error %", "queries", "pool"]
    return Grid("The probability that a precision needs (-: it is not reached)", columns, rows)
