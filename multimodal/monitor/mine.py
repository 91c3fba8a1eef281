"""The rows of a table that are worth pairing next, as a list for people who label."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError, suggest
from multimodal.core.files import check_folder
from multimodal.core.hardware import fast_device
from multimodal.core.progress import progress
from multimodal.core.rejects import Rejects
from multimodal.data.run_data import load_run_data
from multimodal.data.samples import Samples
from multimodal.evaluation.evaluated import embed_rows
from multimodal.evaluation.faults import RowViews, readable
from multimodal.monitor.choose import By, choose, distances_to, margins, quantiles

HIGH = 0.75  # quantile from which a row is called uncertain or badly covered
SHOWN = 10  # rows when a result is printed


@dataclass(frozen=True)
class RowToPair:
    """A row of one modality that is worth a value of another one.

    Attributes:
        row: its number in the table.
        key: its key.
        modality: the modality that it has.
        missing: the modality in which candidates for it were compared.
        margin: by how much the best candidate scores above the second, in [0, 2]; NaN: there are not two.
        best, second: keys of the rows of these candidates; "" if there are none.
        uncovered: how far it is from the nearest row that is paired, 1 - cosine, in [0, 2].
        distance: how far it is from the nearest row that is paired or listed before, in [0, 2].
        reasons: what speaks for it.
        contents: its value, to read.

    Examples:
        >>> RowToPair(7, "s-7", "image", "text", 0.02, "s-1", "s-2", 0.4, 0.4, ("uncertain",), "image: 7.png").key
        's-7'
    """

    row: int
    key: str
    modality: str
    missing: str
    margin: float
    best: str
    second: str
    uncovered: float
    distance: float
    reasons: tuple[str, ...]
    contents: str


@dataclass(frozen=True)
class RowsToPair:
    """Rows that are worth pairing next, the most useful first.

    Attributes:
        rows: the rows.
        unpaired: number of rows of one modality alone, among which they were chosen.
        paired: number of rows that have a pair.
        notes: rows that cannot be read.

    Examples:
        >>> RowsToPair([], unpaired=0, paired=10)
        0 of 0 rows without a pair; 10 rows have one
    """

    rows: Sequence[RowToPair]
    unpaired: int
    paired: int
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        title = f"{len(self):,} of {self.unpaired:,} rows without a pair; {self.paired:,} rows have one"
        lines = [f"{one.key}: {', '.join(one.reasons)}; {one.contents}" for one in self.rows[:SHOWN]]
        return "\n".join([title, *lines])

    def to_json(self) -> dict[str, Any]:
        """Return the rows as JSON values."""
        rows = [asdict(one) | {"margin": None if np.isnan(one.margin) else one.margin} for one in self.rows]
        return {"unpaired": self.unpaired, "paired": self.paired, "rows": rows}

    def save(self, path: str | Path) -> None:
        """Write the rows as CSV, in order."""
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["order", *RowToPair.__dataclass_fields__])
            for number, one in enumerate(self.rows, 1):
                cells = asdict(one) | {"reasons": ", ".join(one.reasons)}
                table.writerow([number, *(f"{v:.4f}" if isinstance(v, float) else v for v in cells.values())])


def mine_rows(
    run: str | Path | Embedder,
    data: Any = None,
    *,
    count: int = 100,
    by: By = "all",
    split: str | list[str] | None = None,
    out: str | Path | None = None,
    **settings: Any,
) -> RowsToPair:
    """List the rows of one modality alone that are worth pairing next.

    Args:
        run: folder of a run or of a saved model, or an embedder.
        data: a table's name, a configuration or, in Python, a table in memory, see ``evaluate``. None: the run's.
        count: number of rows.
        by: "all": uncertain, far from what is paired, and unlike the rows listed before; "uncertain", "covered": by one of
            these alone; see ``choose``.
        split: the rows to go through. None: all.
        out: a CSV file to write the rows to.
        **settings: keys of ``data:`` that replace the configured ones.

    Raises:
        MultimodalError: the model or the data cannot be read, or every row has a pair.
        UsageError: an argument is out of range.
    """
    if out is not None:
        check_file(out)
    folder = None if isinstance(run, Embedder) else Path(run)
    embedder = run if isinstance(run, Embedder) else Embedder.from_pretrained(run).to(fast_device())
    of_run = load_run_data(folder, data, settings)
    samples = of_run.samples
    rejects = Rejects(of_run.max_rejects, len(samples), None, samples.key_of)
    views = RowViews.of(embed_rows(embedder, samples, samples.rows(split or "all"), rejects).embeddings)
    with progress("Choosing rows"):
        found = rows_to_pair(views, samples, count, by)
    found = RowsToPair(found.rows, found.unpaired, found.paired, (rejects.summary(),) if len(rejects) else ())
    if out is not None:
        found.save(out)
    return found


def check_file(out: str | Path) -> None:
    """Raise a ``UsageError`` if a file cannot be written because a folder has its name, or its folder's name is a file's."""
    if Path(out).is_dir():
        raise UsageError(f"out: {out} is a folder; name a file, such as rows.csv.")
    check_folder(Path(out).parent)


def rows_to_pair(views: RowViews, samples: Samples, count: int = 100, by: By = "all") -> RowsToPair:
    """List the rows that are worth pairing next, from vectors.

    Args:
        views: vectors of the rows.
        samples: the table.
        count: number of rows.
        by: see ``choose``.

    Raises:
        MultimodalError: every row has a pair, or there are vectors of one modality only.
    """
    if len(views.rows) < 2:
        known = suggest("", [*views.rows])
        raise MultimodalError(f"Pairs need two modalities; the model and the table {samples.name!r} share one.{known}")
    modalities = list(views.rows)
    every = np.concatenate([rows.numpy() for rows in views.rows.values()])
    numbers, times = np.unique(every, return_counts=True)
    single = {m: rows.numpy()[np.isin(rows.numpy(), numbers[times == 1])] for m, rows in views.rows.items()}
    unpaired = int((times == 1).sum())
    if not unpaired:
        raise MultimodalError(
            f"Every row of {samples.name!r} has a pair of {' and '.join(modalities)}, so there is none to pair."
        )
    # Vectors of two modalities are never compared for their distance, so each modality is a block of its own.
    parts = [_Part.of(views, samples, m, single[m]) for m in modalities if len(single[m])]
    vectors, labelled = (_in_blocks([getattr(part, name) for part in parts]) for name in ("vectors", "labelled"))
    margin = np.concatenate([part.margin for part in parts])
    uncovered = np.concatenate([distances_to(part.vectors, part.labelled) for part in parts])
    uncertainty = -np.nan_to_num(margin, nan=2.0)
    chosen = choose(vectors, labelled, uncertainty, count, by)
    uncertain, far, median = quantiles(uncertainty), quantiles(uncovered), float(np.median(uncovered))
    rows = np.concatenate([part.rows for part in parts])
    place = [(part, n) for part in parts for n in range(len(part.rows))]
    listed = []
    for position, distance in zip(chosen.rows.tolist(), chosen.distances.tolist(), strict=True):
        part, n = place[position]
        speaks = {
            "uncertain": uncertain[position] >= HIGH and not np.isnan(margin[position]),
            "badly covered": far[position] >= HIGH,
            "diverse": distance >= median,
        }
        row = int(rows[position])
        listed.append(
            RowToPair(
                row,
                samples.key_of(row),
                part.modality,
                part.missing[n],
                float(margin[position]),
                part.candidates[n][0],
                part.candidates[n][1],
                float(uncovered[position]),
                distance,
                tuple(reason for reason, holds in speaks.items() if holds),
                readable({part.modality: samples[row].values.get(part.modality)}),
            )
        )
    return RowsToPair(listed, unpaired, int((times > 1).sum()))


@dataclass(frozen=True)
class _Part:
    """The rows that have one modality alone: their vectors, those of rows that are paired, and their candidates."""

    modality: str
    rows: np.ndarray
    vectors: np.ndarray
    labelled: np.ndarray
    margin: np.ndarray
    missing: list[str]
    candidates: list[tuple[str, str]]

    @classmethod
    def of(cls, views: RowViews, samples: Samples, modality: str, rows: np.ndarray) -> _Part:
        own, all_vectors = views.rows[modality].numpy(), views.vectors[modality].numpy()
        alone = np.isin(own, rows)
        vectors = all_vectors[alone]
        margin, missing, candidates = np.full(len(rows), np.nan, np.float32), [""] * len(rows), [("", "")] * len(rows)
        for other in views.rows:
            if other == modality:
                continue
            other_rows, other_vectors = views.rows[other].numpy(), views.vectors[other].numpy()
            groups = samples.group_numbers[other_rows]
            found = margins(vectors, other_vectors, groups)
            for n in np.flatnonzero(~(found >= margin)).tolist():  # smaller, or the first
                margin[n], missing[n] = found[n], other
                candidates[n] = _best_two(vectors[n], other_vectors, other_rows, groups, samples)
        return cls(modality, rows, vectors, all_vectors[~alone], margin, missing, candidates)


def _best_two(
    query: np.ndarray, vectors: np.ndarray, rows: np.ndarray, groups: np.ndarray, samples: Samples
) -> tuple[str, str]:
    scores = vectors @ query
    best = int(scores.argmax())
    scores[groups == groups[best]] = -np.inf
    second = int(scores.argmax())
    keys = samples.key_of(int(rows[best])), samples.key_of(int(rows[second]))
    return (keys[0], keys[1] if np.isfinite(scores[second]) else "")


def _in_blocks(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Put vectors of several modalities into one matrix, those of different ones orthogonal to each other."""
    if len(parts) == 1:
        return parts[0]
    widths = np.cumsum([0, *(part.shape[1] for part in parts)])
    joined = np.zeros((sum(map(len, parts)), int(widths[-1])), dtype=np.float32)
    start = 0
    for number, part in enumerate(parts):
        joined[start : start + len(part), widths[number] : widths[number + 1]] = part
        start += len(part)
    return joined
