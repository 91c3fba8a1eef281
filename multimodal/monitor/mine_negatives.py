"""Hard negatives of a table's rows, found by a model, as a table with a column of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError, suggest
from multimodal.core.files import atomic_folder
from multimodal.core.hardware import fast_device
from multimodal.core.manifests import PREPARED
from multimodal.core.progress import progress
from multimodal.core.rejects import Rejects
from multimodal.data.run_data import RunData, load_run_data
from multimodal.evaluation.evaluated import embed_rows
from multimodal.evaluation.faults import RowViews
from multimodal.monitor.hard_negatives import NONE, Nearest, exact_nearest, hard_negatives

if TYPE_CHECKING:
    from multimodal.search.index import Index

MAX_COUNT = 20


@dataclass(frozen=True)
class MinedNegatives:
    """Hard negatives of rows.

    Attributes:
        pair: the modalities of the rows' own value and of the negatives, "image-text".
        rows: ``(n,)`` int64 row numbers, of rows with both modalities.
        negatives: ``(n, count)`` int64 numbers of rows whose values are negatives; -1 where there are no more.
        scores: ``(n, count)`` float32 scores of the negatives.
        positives: ``(n,)`` float32 scores of the rows' own values.
        columns: the columns that they were written to.

    Examples:
        >>> one = np.zeros((1, 1), dtype=np.float32)
        >>> MinedNegatives("image-text", np.array([4]), np.array([[7]]), one, one[0], ("title_negative",))
        1 of 1 rows have a hard negative, image-text: title_negative
    """

    pair: str
    rows: np.ndarray
    negatives: np.ndarray
    scores: np.ndarray
    positives: np.ndarray
    columns: tuple[str, ...]

    def __repr__(self) -> str:
        found = int((self.negatives != NONE).any(axis=1).sum())
        return f"{found:,} of {len(self.rows):,} rows have a hard negative, {self.pair}: {', '.join(self.columns)}"

    def to_json(self) -> dict[str, Any]:
        """Return the counts and mean scores as JSON values."""
        has = self.negatives != NONE
        mean = float(self.scores[has].mean()) if has.any() else None
        counts = {"rows": len(self.rows), "with_negatives": int(has.any(axis=1).sum()), "negatives": int(has.sum())}
        return {"pair": self.pair, **counts, "mean_score": mean, "columns": list(self.columns)}


def mine_negatives(
    run: str | Path | Embedder,
    data: Any = None,
    *,
    pair: str,
    count: int = 1,
    ratio: float = 0.95,
    skip: int = 0,
    index: str | Path | None = None,
    split: str | list[str] | None = None,
    out: str | Path | None = None,
    **settings: Any,
) -> MinedNegatives:
    """Find values of other rows that score nearly as high as a row's own, to train with as hard negatives.

    Args:
        run: folder of a run or of a saved model, or an embedder.
        data: a table's name, a configuration or, in Python, a table in memory, see ``evaluate``. None: the run's.
        pair: the modality that searches and the one that is found, "image-text"; they may be the same one.
        count: negatives of each row, from 1 to 20.
        ratio: negatives score at most this fraction of the score of the row's own value, in (0, 1]: above it they may be
            true of the row. Those of the row's group never are negatives.
        skip: how many of the nearest are skipped.
        index: an index of the same model to search, which holds the rows by their keys. None: every value is compared.
        split: the rows, which are also searched. None: the training split, or all if there is none.
        out: a folder to write the table to with columns ``COLUMN_negative``, ``COLUMN_negative_2``, ... None: not written.
        **settings: keys of ``data:`` that replace the configured ones.

    Raises:
        MultimodalError: the model, the index or the data cannot be read, or no row has both modalities.
        UsageError: an argument is out of range, or ``out`` is given for a table in memory.
    """
    if not 1 <= count <= MAX_COUNT:
        raise UsageError(f"count must be from 1 to {MAX_COUNT}; got {count}.")
    if not 0 < ratio <= 1:
        raise UsageError(f"ratio must be above 0 and at most 1; got {ratio}.")
    if skip < 0:
        raise UsageError(f"skip must be at least 0; got {skip}.")
    folder = None if isinstance(run, Embedder) else Path(run)
    embedder = run if isinstance(run, Embedder) else Embedder.from_pretrained(run).to(fast_device())
    of_run = load_run_data(folder, data, settings)
    samples = of_run.samples
    own, target = _modalities(pair, [m for m in embedder.modalities if m in samples.modalities])
    rejects = Rejects(of_run.max_rejects, len(samples), None, samples.key_of)
    rows = samples.rows(split or (of_run.train_split if _has(of_run, of_run.train_split) else "all"))
    views = RowViews.of(embed_rows(embedder, samples, rows, rejects).embeddings)
    shared = views.shared(own, target) if {own, target} <= {*views.rows} else None
    if shared is None or not len(shared[0]):
        raise MultimodalError(f"No row of {samples.name!r} has both {own} and {target}.")
    queried, x, y = (part.numpy() for part in shared)
    positives = (x * y).sum(axis=1)
    rows_with, candidates = views.rows[target].numpy(), views.vectors[target].numpy()
    with progress("Looking for hard negatives"):
        nearest = exact_nearest(candidates) if index is None else _of_index(index, embedder, target, samples, rows_with)
        places, scores = hard_negatives(
            x,
            samples.group_numbers[queried],
            positives,
            samples.group_numbers[rows_with],
            nearest,
            count,
            ratio,
            skip,
        )
    negatives = np.where(places == NONE, NONE, rows_with[places])
    column = samples.schema.columns[target][0]
    names = tuple(f"{column}_negative" + (f"_{n}" if n > 1 else "") for n in range(1, count + 1))
    found = MinedNegatives(f"{own}-{target}", queried, negatives, scores, positives, names)
    if out is not None:
        write_negatives(found, of_run, target, Path(out))
    return found


def _has(data: RunData, split: str | list[str]) -> bool:
    return all(name in data.samples.splits for name in ([split] if isinstance(split, str) else split))


def _modalities(pair: str, known: list[str]) -> tuple[str, str]:
    own, _, target = pair.partition("-")
    for name in (own, target):
        if name not in known:
            raise UsageError(f"pair: {pair!r} is not two modalities like image-text.{suggest(name, known)}")
    return own, target


def _of_index(index: str | Path, embedder: Embedder, target: str, samples: Any, rows: np.ndarray) -> Nearest:
    """Return a search of an index; rows that are not among the candidates are found as -1."""
    from multimodal.search.index import Index

    opened: Index = Index.open(index)
    opened.check_model(embedder.fingerprint)
    if target not in opened.modalities:
        raise UsageError(f"The index {index} holds no {target}.{suggest(target, opened.modalities)}")
    position: Mapping[str, int] = {samples.key_of(row): n for n, row in enumerate(rows.tolist())}

    def nearest(queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        found = opened.engine.nearest(queries.astype(np.float32), count, target)
        width = max(map(len, found), default=0)
        places = np.full((len(queries), width), NONE, dtype=np.int64)
        scores = np.full((len(queries), width), -1.0, dtype=np.float32)
        for number, several in enumerate(found):
            for place, one in enumerate(several):
                places[number, place], scores[number, place] = position.get(one.key, NONE), one.score
        return places, scores

    return nearest


def write_negatives(found: MinedNegatives, data: RunData, target: str, out: Path) -> None:
    """Write the table again, as shards, with columns of hard negatives.

    Args:
        found: the negatives.
        data: the table.
        target: modality of the negatives.
        out: the folder to write; the output of an earlier call is replaced.

    Raises:
        MultimodalError: too many rows cannot be read.
        UsageError: the table is in memory, or has a column of that name already.
    """
    from multimodal.prepare.copied_table import CopiedTable
    from multimodal.prepare.source import open_source
    from multimodal.prepare.written_table import write_table

    samples = data.samples
    if not isinstance(samples.table, str):
        raise UsageError(
            f"The table {samples.name!r} is in memory, so it cannot be written with negatives; write it first."
        )
    if Path(samples.table).exists() and out.resolve() == Path(samples.table).resolve():
        raise UsageError(f"out: {out} is the table itself; name another folder.")
    table = CopiedTable(open_source(samples.table, samples.options), samples.schema, data.max_rejects)
    number_of = {row: n for n, row in enumerate(found.rows.tolist())}
    columns = samples.schema.columns[target]

    def more(row: int) -> dict[str, Any]:
        values = {}
        for name, other in zip(found.columns, _negatives(found, number_of, row), strict=False):
            value = next((v for c in columns if (v := samples.cell(other, c)) is not None), None)
            clean = table.clean_cell(other, columns[0], value)
            if clean is not None:
                values[name] = clean
        return values

    like = dict.fromkeys(found.columns, columns[0])
    with atomic_folder(out, PREPARED) as new:
        write_table(table, new, like, more, found.to_json(), progress)


def _negatives(found: MinedNegatives, number_of: Mapping[int, int], row: int) -> list[int]:
    number = number_of.get(row)
    return [] if number is None else [other for other in found.negatives[number].tolist() if other != NONE]
