"""Report on how good a trained space is: retrieval between all pairs of modalities, next to baselines."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError, check_names, suggest
from multimodal.core.extras import require
from multimodal.core.files import check_folder
from multimodal.core.hardware import fast_device
from multimodal.core.progress import progress
from multimodal.core.rejects import Rejects
from multimodal.core.run_folder import REJECTS
from multimodal.data.loaders import loader_in_order
from multimodal.data.run_data import SETTINGS, RunData, load_run_data, load_training_rows
from multimodal.data.samples import Samples, readable_rows
from multimodal.evaluation.linear_baseline import TableRows, linear_retrieval
from multimodal.evaluation.look_alikes import DigestedSamples, highest_recalls
from multimodal.evaluation.render import render_text, retrieval_html, retrieval_table, save_chart
from multimodal.evaluation.retrieval import MEASURES, Retrieval, retrieval, warn_repeated_vectors

if TYPE_CHECKING:
    from pandas import DataFrame
    from rich.table import Table

BASELINES = ("linear",)
BATCH = 256  # rows embedded at a time; affects the speed, not the results


@dataclass(frozen=True, repr=False)
class Report:
    """Result of ``evaluate``: it prints as tables, and a notebook shows it as such.

    Attributes:
        run: folder of the run or model.
        split: split of the queries.
        pool: split that was searched, or "all".
        seed: seed of the run; None: unknown.
        pairs: "text->image" -> the measures of that direction.
        baselines: name of a baseline -> its measures, like ``pairs``.
        train_split: split that the baselines were fitted on.
        rows: number of rows of the split; None: unknown.
        table_rows: number of rows of the table; None: unknown.
        notes: remarks for the reader, a line each: equal vectors in a pool, skipped pairs, rows that cannot be read.
        highest_recall_at_1: "text->image" -> the highest recall@1 that any model can have, as equal inputs (one drawing
            that is the letter A of three alphabets) tie.

    Examples:
        >>> import torch
        >>> from multimodal.core.embeddings import Embeddings
        >>> rows = torch.arange(2)
        >>> vectors = {"text": torch.eye(2), "image": torch.eye(2)[[0, 0]]}  # both images are at the first text
        >>> found = retrieval(Embeddings(vectors, {"text": rows, "image": rows}, groups=rows))
        >>> report = Report("runs/cups", "test", "test", seed=0, pairs={"text->image": found["text->image"]})
        >>> report.title
        "Retrieval in 'test' (runs/cups)"
        >>> report.to_pandas()[["by", "pair", "recall@1", "mrr"]].values.tolist()
        [['model', 'text->image', 0.0, 0.5]]
    """

    run: str
    split: str | list[str]
    pool: str | list[str]
    seed: int | None
    pairs: Mapping[str, Retrieval]
    baselines: Mapping[str, Mapping[str, Retrieval]] = field(default_factory=dict)
    train_split: str | list[str] = "train"
    rows: int | None = None
    table_rows: int | None = None
    notes: tuple[str, ...] = ()
    highest_recall_at_1: Mapping[str, float] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Title of the table and the chart, with the splits, the run and how many rows of the table were evaluated."""
        place = repr(self.split) if self.pool == self.split else f"{self.pool!r}, queries of {self.split!r}"
        counts = "" if self.rows is None else f": {self.rows:,} of {self.table_rows:,} rows"
        return f"Retrieval in {place} ({self.run}){counts}"

    def tables(self) -> list[Table]:
        """Return the model's table and one for each baseline that has results, for rich's console."""
        return [retrieval_table(found, title, self.highest_recall_at_1) for title, found in self._titled()]

    def _titled(self) -> Iterator[tuple[str, Mapping[str, Retrieval]]]:
        yield self.title, self.pairs
        for name, found in self.baselines.items():
            if found:
                yield f"The {name} baseline, fitted on {self.train_split!r}", found

    def __str__(self) -> str:
        return render_text([*self.tables(), *self.notes])

    __repr__ = __str__

    def to_json(self) -> dict[str, Any]:
        """Return the document that ``multimodal evaluate --json`` prints."""
        return {
            "run": self.run,
            "split": self.split,
            "pool": self.pool,
            "seed": self.seed,
            "rows": self.rows,
            "table_rows": self.table_rows,
            "pairs": {pair: r.to_json() for pair, r in self.pairs.items()},
            "highest_recall@1": dict(self.highest_recall_at_1),
            "baselines": {n: {pair: r.to_json() for pair, r in found.items()} for n, found in self.baselines.items()},
        }

    def to_pandas(self) -> DataFrame:
        """Return one row for each direction of the model and of the baselines, with a column for each measure."""
        from pandas import DataFrame

        by = {"model": self.pairs} | dict(self.baselines)
        rows = [{"by": name, "pair": pair} | r.to_json() for name, found in by.items() for pair, r in found.items()]
        return DataFrame(rows, columns=["by", "pair", *MEASURES])

    def _repr_html_(self) -> str:
        tables = [retrieval_html(found, title, self.highest_recall_at_1) for title, found in self._titled()]
        return "".join([*tables, *(f"<p>{html.escape(note)}</p>" for note in self.notes)])

    def save(self, folder: str | Path) -> None:
        """Write ``evaluation.json`` and ``retrieval.png`` to a folder, which is created if missing.

        Raises:
            UsageError: the folder is a file.
        """
        check_folder(folder)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "evaluation.json").write_text(json.dumps(self.to_json(), indent=1), encoding="utf-8")
        save_chart(self.pairs, self.title, folder / "retrieval.png")


def evaluate(
    run: str | Path | Embedder,
    data: Any = None,
    *,
    split: str | list[str] | None = None,
    pool: str | list[str] | None = None,
    baseline: Literal["linear"] | None = None,
    out: str | Path | None = None,
    **settings: Any,
) -> Report:
    """Measure retrieval between all ordered pairs of modalities.

    Args:
        run: folder of a run or of an exported model, or an embedder.
        data: a configuration with a ``data:`` section, a table's name, or in Python a ``DataModule``, ``Samples`` or a table
            in memory. None: the run's data.
        split: split of the queries. None: the data's test split.
        pool: split to search, or "all". None: ``split``.
        baseline: "linear" also fits a linear model on the rows that the run was trained on, without those of ``split``, and
            measures it, for modalities with linear features. Where there are no such rows, a note says so.
        out: folder to write ``evaluation.json``, ``retrieval.png`` and ``rejects.jsonl`` (rows that cannot be read) to.
        **settings: keys of ``data:`` that replace the configured ones (``columns``, ``key``, ``group``, ``max_rejects``, ...).

    Returns:
        The measures of the model and of the baselines.

    Raises:
        MultimodalError: the model or the data cannot be read, or they have no pair of modalities in common.
        UsageError: there is no such split or baseline, scikit-learn, which the extra ``baseline`` installs, is missing, an
            embedder is given without data, settings are given for a ``DataModule`` or ``Samples``, or ``out`` is a file.
    """
    check_names("evaluate", settings, [*SETTINGS, "pool", "baseline", "out"])
    if baseline is not None:
        if baseline not in BASELINES:
            raise UsageError(f"There is no baseline {baseline!r}.{suggest(baseline, list(BASELINES))}")
        require("baseline", "The linear baseline", "sklearn")
    if out is not None:
        check_folder(out)
    folder = None if isinstance(run, Embedder) else Path(run)
    embedder = run if isinstance(run, Embedder) else Embedder.from_pretrained(run).to(fast_device())
    of_run = load_run_data(folder, data, settings)
    samples = of_run.samples
    split = split or of_run.test_split
    rows = samples.rows(split)
    modalities = [m for m in embedder.modalities if m in samples.modalities]
    if len(modalities) < 2:
        raise MultimodalError(f"The model knows {embedder.modalities}, the data have {samples.modalities}: no pair.")
    searched = None if pool is None else samples.rows(pool)
    if searched is not None and np.array_equal(searched, rows):
        searched = None  # the queries are the pool
    notes: list[str] = []
    training = None if baseline is None else _rows_of_the_training(folder, of_run, rows, notes)
    embedded = rows if searched is None else np.concatenate([rows, searched])
    rejects_path = None if out is None else Path(out) / REJECTS
    if rejects_path is not None:
        rejects_path.unlink(missing_ok=True)  # from an earlier evaluation
    rejects = Rejects(of_run.max_rejects, len(samples), rejects_path)
    processors = {m: embedder.processors[m] for m in modalities}
    data_of_queries = DigestedSamples(samples, processors)
    data_of_pool = data_of_queries if searched is None else DigestedSamples(samples, processors)
    with progress("Embedding", len(embedded)) as advance:
        queries = pool_vectors = embedder.embed_all(loader_in_order(data_of_queries, rows, BATCH, rejects), advance)
        if searched is not None:
            pool_vectors = embedder.embed_all(loader_in_order(data_of_pool, searched, BATCH, rejects), advance)
    notes += warn_repeated_vectors(pool_vectors)
    baselines: dict[str, Mapping[str, Retrieval]] = {}
    if baseline is not None and training is not None:
        known = {m: processor for m, processor in processors.items() if m in training[0].modalities}
        with progress("Fitting the linear baseline"):
            train, *tables = [
                TableRows(*readable_rows(of_part, part, known))
                for of_part, part in (
                    training,
                    (samples, rows),
                    *([] if searched is None else [(samples, searched)]),
                )
            ]
            baselines[baseline] = linear_retrieval(train, *tables, processors=known, on_skipped_pair=notes.append)
    if len(rejects):
        notes.append(rejects.summary())
    pairs = retrieval(queries, pool_vectors)
    highest = highest_recalls(queries, data_of_queries.digests, pool_vectors, data_of_pool.digests)
    if not pairs:
        notes.append("No query has a right answer in the pool: search a pool that contains the groups of the queries.")
    report = Report(
        run="embedder" if folder is None else str(run),
        split=split,
        pool=pool or split,
        seed=of_run.seed,
        pairs=pairs,
        baselines=baselines,
        train_split=of_run.train_split,
        rows=len(rows),
        table_rows=len(samples),
        notes=tuple(notes),
        highest_recall_at_1={pair: highest[pair] for pair in pairs},
    )
    if out is not None:
        report.save(out)
    return report


def _rows_of_the_training(
    run: Path | None, data: RunData, measured: np.ndarray, notes: list[str]
) -> tuple[Samples, np.ndarray] | None:
    """Return the rows to fit a baseline on, none of which is measured; None, with a note, if there are none."""
    try:
        samples, rows = load_training_rows(run, data)
    except MultimodalError as error:
        if not data.is_another_table:
            raise
        notes.append(f"The baseline is left out, as the rows that the model was trained on cannot be read: {error}")
        return None
    if samples is data.samples:
        rows = np.setdiff1d(rows, measured)
    if not len(rows):
        notes.append("The baseline is left out: all rows that the model was trained on are evaluated.")
        return None
    return samples, rows
