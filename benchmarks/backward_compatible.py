"""What backward-compatible training costs, and what it gives: recall of new queries among old and among new vectors.

On some of the glyphs, pictures and names: an old model is trained, its vectors of the training rows are stored, and then two
new models with wider encoders are trained for longer, one with InfoNCE alone and one with ``BackwardCompatible`` added to it.
Printed is recall@1 and recall@10 from names to pictures and from pictures to names over the unseen characters, with the queries
of one model and the candidates of another; intervals are 95 % bootstrap intervals over characters.

    python benchmarks/backward_compatible.py [--rows 8000] [--old_steps 150] [--new_steps 300] [--weight 1.0]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import multimodal as mm
from multimodal.core.table import Table
from multimodal.data.datamodule import DataModule
from multimodal.data.samples import Samples
from multimodal.data.tables.open import open_table
from multimodal.evaluation.intervals import bootstrap
from multimodal.evaluation.ranking import rankings
from multimodal.objectives import BackwardCompatible, InfoNCE, Objective, Sum

COLUMNS = {"image": "image", "text": "name"}
SETTINGS: dict[str, Any] = {"columns": COLUMNS, "key": "key", "group": "character", "split": "split"}
OLD = {m: f"old_{m}" for m in COLUMNS}
CUTOFFS = (1, 10)


class Subset(Table):
    """Some rows of the glyphs, with the vectors of the old model as columns, if there are any."""

    name, metadata_columns = "glyphs", ("name",)

    def __init__(self, rows: np.ndarray, vectors: dict[str, np.ndarray]) -> None:
        self._glyphs, self._rows, self._vectors = open_table("glyphs"), rows, vectors
        self.columns = ("key", "character", "name", "font", "split", "image", *vectors)

    @property
    def fingerprint(self) -> str:
        return f"{self._glyphs.fingerprint} {len(self)} {sorted(self._vectors)}"

    def __len__(self) -> int:
        return len(self._rows)

    def value(self, row: int, column: str) -> Any:
        if column in self._vectors:
            vector = self._vectors[column][row]
            return None if np.isnan(vector).any() else vector.tolist()
        return self._glyphs.value(int(self._rows[row]), column)


def chosen_rows(count: int) -> np.ndarray:
    """Return the rows of the unseen characters and of the validation, and some training rows."""
    samples = Samples.of("glyphs", **SETTINGS)
    train = samples.rows("train")
    drawn = np.sort(np.random.default_rng(0).permutation(train)[:count])
    return np.concatenate([drawn, samples.rows("validation"), samples.rows("unseen_characters")])


def train(
    table: Subset, folder: Path, widths: list[int], width: int, steps: int, objective: Objective, seed: int, old: bool
) -> mm.Embedder:
    torch.manual_seed(seed)
    encoders = {
        "image": mm.create("image", "small_cnn", size=48, channels=1, widths=widths, jitter=0.03),
        "text": mm.create("text", "transformer", vocab_size=1000, width=width, layers=2, drop=0.0),
    }
    settings: dict[str, Any] = SETTINGS | ({"targets": {name: name for name in OLD.values()}} if old else {})
    data = DataModule(table=table, batch_size=256, epoch="rows", keep_items=True, **settings)
    optimizer = lambda parameters: torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.05)  # noqa: E731
    model = mm.EmbedderModule(encoders, dim=128, objective=objective, optimizer=optimizer, seed=seed)
    return mm.fit(
        model, data, folder, max_steps=steps, val_check_interval=steps, check_val_every_n_epoch=None,
        gradient_clip_val=1.0, enable_progress_bar=False,
    )  # fmt: skip


def encoded(embedder: mm.Embedder, samples: Samples, rows: np.ndarray) -> dict[str, np.ndarray]:
    values: dict[str, Any] = {m: [samples.cell(int(row), c) for row in rows] for m, c in COLUMNS.items()}
    return {m: embedder.encode(**{m: of_modality}) for m, of_modality in values.items()}


def recalls(queries: dict[str, np.ndarray], stored: dict[str, np.ndarray], groups: np.ndarray) -> str:
    cells = []
    numbers = torch.from_numpy(groups)
    for of, to in (("text", "image"), ("image", "text")):
        found = [(r.queries.numpy(), r.ranks[:, 0].numpy()) for r in rankings(
            torch.from_numpy(queries[of]), torch.from_numpy(stored[to]), numbers, numbers
        )]  # fmt: skip
        asked, ranks = (np.concatenate(column) for column in zip(*found, strict=True))
        measured = bootstrap({f"{k}": (ranks <= k).astype(float) for k in CUTOFFS}, groups[asked])
        cells += [f"{i.mean:.3f} ({i.low:.3f}, {i.high:.3f})" for i in measured.values()]
    return " | ".join(cells)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rows", type=int, default=8000)
    p.add_argument("--old_steps", type=int, default=150)
    p.add_argument("--new_steps", type=int, default=300)
    p.add_argument("--weight", type=float, default=1.0)
    options = p.parse_args()
    rows = chosen_rows(options.rows)
    plain = Subset(rows, {})
    samples = Samples.of(plain, **SETTINGS)
    tested = samples.rows("unseen_characters")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        old = train(plain, out / "old", [16, 32, 64, 128], 64, options.old_steps, InfoNCE(), 0, False)
        trained = np.full((len(rows), old.dim), np.nan, np.float32)
        known = {name: trained.copy() for name in OLD.values()}
        training = samples.rows("train")
        for modality, vectors in encoded(old, samples, training).items():
            known[OLD[modality]][training] = vectors
        models = {"old": old}
        larger = ([32, 64, 128, 256], 128, options.new_steps)
        models["new"] = train(plain, out / "new", *larger, InfoNCE(), 1, False)
        both = Sum({"new": InfoNCE(), "old": BackwardCompatible(OLD)}, {"old": options.weight})
        models["compatible"] = train(Subset(rows, known), out / "compatible", *larger, both, 1, True)
    vectors = {name: encoded(model, samples, tested) for name, model in models.items()}
    groups = samples.group_numbers[tested]
    print(f"{len(training):,} training rows, {len(tested):,} unseen characters")
    print("| queries of | vectors of | text -> image R@1 | R@10 | image -> text R@1 | R@10 |")
    print("| --- | --- | --- | --- | --- | --- |")
    for queries, stored in (
        ("old", "old"),
        ("new", "old"),
        ("compatible", "old"),
        ("new", "new"),
        ("compatible", "compatible"),
    ):
        print(f"| {queries} | {stored} | {recalls(vectors[queries], vectors[stored], groups)} |", flush=True)


if __name__ == "__main__":
    main()
