"""What made rows are worth: the measures on held-out rows of a model trained with them and without.

- shop: the products of docs/training_data.md, of which a fraction has a title. `captions` writes titles from the columns size,
  colour and kind; `swaps` adds hard negatives. Measured on the products of the other half of the titles, which no training
  row has: retrieval in both directions, and how often a picture scores its title above the same title with another
  size, colour or kind (chance: 1 in 11).
- molecules: a table of SMILES and descriptions, of which a fraction of the training rows has a description. `molecules` writes
  sentences by RDKit for all; trained with them, or on them first and then on the table as it is. A model that was trained on
  the table as it is finds hard negatives (`multimodal mine`), and is trained on with them, and without. Measured on held-out
  descriptions.

Each line is the mean over the seeds and, after it, the standard deviation.

    python benchmarks/synthesize.py shop [--titled 1 0.1] [--seeds 0 1 2]
    python benchmarks/synthesize.py molecules chebi20/molecules.tsv [--rows 1000] [--titled 1 0.2] [--seeds 0 1 2]
"""

from __future__ import annotations

import argparse
import csv
import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

import multimodal as mm
from multimodal.experiment.load import load_config
from multimodal.experiment.quiet import quiet_libraries
from multimodal.prepare.synthesize.table import synthesize_table

COLOURS = {
    "red": "#c8202a",
    "green": "#1e8c3c",
    "blue": "#2850c8",
    "yellow": "#e6c31e",
    "black": "#141414",
    "pink": "#f08cb4",
    "brown": "#7d4b1e",
    "grey": "#8c8c8c",
}
KINDS = {"plate": 40, "flag": 3, "tile": 4}  # corners
SIZES = {"small": 7, "large": 12}  # pixels
TEMPLATE = "{size} {colour} {kind}"
WORDINGS = [TEMPLATE, "a {colour} {kind}, {size}", "{kind} in {colour}, {size}"]
ATTRIBUTES = ("size", "colour", "kind")
SHOP_STEPS, MOLECULE_STEPS = 300, 100
SHOP = """
seed_everything: 0
data:
  columns: {image: photo, text: title}
  key: sku
  group: product
  split: split
  batch_size: 8
  epoch: rows
  workers: 0
  keep_items: true
  test: validation
model:
  dim: 32
  encoders:
    image: {class_path: small_cnn, init_args: {size: 32, channels: 3, widths: [8, 16, 32]}}
    text: {class_path: bag, init_args: {width: 32, vocab_size: 1000}}
  optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.003}}
trainer: {check_val_every_n_epoch: null, enable_progress_bar: false}
"""
MOLECULES = """
seed_everything: 0
data:
  columns: {graph: SMILES, text: description}
  key: CID
  group: CID
  split: split
  batch_size: 64
  workers: 0
  keep_items: true
  test: test
model:
  dim: 128
  encoders:
    graph: {class_path: molecule, init_args: {width: 32, layers: 1, count_drop: 0.3}}
    text: {class_path: bag, init_args: {width: 128, vocab_size: 4000}}
  optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.002}}
trainer: {check_val_every_n_epoch: null, enable_progress_bar: false}
"""


def write_table(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write rows as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return path


def shop(folder: Path, titled: float, seed: int) -> Path:
    """Draw the shop; half of the titles are the training split's, of whose rows a fraction has its title."""
    rng = random.Random(seed)
    (folder / "pictures").mkdir(parents=True)
    titles = [f"{size} {colour} {kind}" for size in SIZES for colour in COLOURS for kind in KINDS]
    trained = {*rng.sample(titles, len(titles) // 2)}
    rows = []
    for number in range(480):
        colour, kind, size = (rng.choice(list(values)) for values in (COLOURS, KINDS, SIZES))
        picture = Image.new("RGB", (32, 32), "white")
        place = (16 + rng.uniform(-3, 3), 16 + rng.uniform(-3, 3), SIZES[size] + rng.uniform(-1, 1))
        ImageDraw.Draw(picture).regular_polygon(place, KINDS[kind], rng.randint(-15, 15), fill=COLOURS[colour])
        picture.save(folder / "pictures" / f"{number}.png")
        title = f"{size} {colour} {kind}"
        split = "train" if title in trained else "validation"
        shown = title if split == "validation" or rng.random() < titled else ""
        row = {"sku": f"s-{number}", "photo": f"pictures/{number}.png", "title": shown, "product": title}
        rows.append(row | {"size": size, "colour": colour, "kind": kind, "split": split})
    return write_table(folder / "shop.csv", rows)


def train(
    config: str,
    table: Path,
    run: Path,
    seed: int,
    data: dict[str, Any],
    steps: int,
    model: dict[str, Any] | None = None,
) -> mm.Embedder:
    """Train a configuration on a table."""
    path = run.with_suffix(".yaml")
    path.write_text(config)
    changes = {"run": str(run), "seed_everything": seed, "data": {"table": str(table), **data}}
    changes |= {"model": model or {}, "trainer": {"max_steps": steps, "val_check_interval": steps}}
    with quiet_libraries():
        experiment = load_config(path, changes)
        experiment.trainer.fit(experiment.model, datamodule=experiment.data)
    return mm.Embedder.from_pretrained(run)


def retrieval(run: Path, table: Path, split: str) -> dict[str, float]:
    """Return the mean reciprocal ranks on a split of the original table."""
    report = mm.evaluate(run, str(table), split=split)
    return {name: found.mrr for name, found in report.pairs.items()}


def attribute_choices(embedder: mm.Embedder, table: Path) -> float:
    """Return how often a held-out picture scores its title above all titles with one other attribute."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "validation"]
    values = {"size": SIZES, "colour": COLOURS, "kind": KINDS}
    titles = [TEMPLATE.format(size=s, colour=c, kind=k) for s in SIZES for c in COLOURS for k in KINDS]
    place = {title: n for n, title in enumerate(titles)}
    pictures = np.asarray(embedder.encode(image=[table.parent / row["photo"] for row in rows]))
    scores = pictures @ np.asarray(embedder.encode(text=titles)).T
    right = []
    for row, of_row in zip(rows, scores, strict=True):
        own = of_row[place[row["product"]]]
        others = [row | {name: value} for name in ATTRIBUTES for value in values[name] if value != row[name]]
        right.append(all(own > of_row[place[TEMPLATE.format_map(other)]] for other in others))
    return float(np.mean(right))


def measure_shop(folder: Path, titled: float, seed: int) -> dict[str, dict[str, float]]:
    """Return condition -> measures."""
    table = shop(folder, titled, seed)
    columns = {"image": "photo", "text": "title"}
    settings: dict[str, Any] = {"columns": columns, "key": "sku", "group": "product", "split": "split", "seed": seed}
    swaps = {"swap": list(ATTRIBUTES)}
    negatives = {"text": [f"title_not_{name}" for name in ATTRIBUTES]}
    conditions: dict[str, tuple[list[str], dict[str, Any], dict[str, Any]]] = {
        "as it is": ([], {}, {}),
        "captions": (["captions"], {"templates": WORDINGS}, {}),
        "captions, swaps": (["captions", "swaps"], {"templates": WORDINGS, **swaps}, {"negatives": negatives}),
    }
    found = {}
    for name, (recipes, made, data) in conditions.items():
        trained_on = table
        if recipes:
            trained_on = folder / f"made_{name.replace(', ', '_')}"
            synthesize_table(table, trained_on, recipes, **settings, **made)
        run = folder / f"run_{name.replace(', ', '_').replace(' ', '_')}"
        embedder = train(SHOP, trained_on, run, seed, data, SHOP_STEPS)
        found[name] = retrieval(run, table, "validation") | {"attributes": attribute_choices(embedder, table)}
    return found


def molecules(source: Path, folder: Path, titled: float, seed: int, most: int) -> Path:
    """Write the table of molecules with a split; a fraction of the training rows has its description."""
    rng = random.Random(seed)
    with source.open(encoding="utf-8", newline="") as file:
        lines = [line.rstrip("\n").split("\t") for line in file]
    rows = []
    for number, smiles, description in rng.sample(lines[1:], min(most, len(lines) - 1)):
        split = "test" if rng.random() < 0.2 else "train"
        shown = description.replace("\\\\", "\\") if split == "test" or rng.random() < titled else ""
        row = {"CID": number, "SMILES": smiles.replace("\\\\", "\\"), "description": shown, "split": split}
        rows.append(row)
    folder.mkdir(parents=True)
    return write_table(folder / "molecules.csv", rows)


def measure_molecules(source: Path, folder: Path, titled: float, seed: int, most: int) -> dict[str, dict[str, float]]:
    """Return condition -> measures."""
    table = molecules(source, folder, titled, seed, most)
    settings: dict[str, Any] = {"columns": {"graph": "SMILES", "text": "description"}, "key": "CID", "group": "CID"}
    made = folder / "made"
    synthesize_table(table, made, ["molecules"], split="split", seed=seed, **settings)
    found: dict[str, dict[str, float]] = {}

    def measure(
        name: str,
        run: str,
        trained_on: Path = table,
        steps: int = MOLECULE_STEPS,
        begin_with: str | None = None,
        **data: Any,
    ) -> None:
        """Train a run, from the weights of another one if it is named, and measure it."""
        model = {} if begin_with is None else {"begin_with": dict.fromkeys(("graph", "text"), str(folder / begin_with))}
        train(MOLECULES, trained_on, folder / run, seed, {"validation": "test", **data}, steps, model)
        found[name] = retrieval(folder / run, table, "test")

    measure("as it is", "run")
    measure("as it is, twice as long", "run_long", steps=2 * MOLECULE_STEPS)
    measure("with sentences", "run_sentences", made)
    measure("sentences, then as it is", "run_then", begin_with="run_sentences")
    measure("as it is, then again", "run_again", begin_with="run")
    mined = folder / "mined"
    mm.mine_negatives(folder / "run", str(table), pair="graph-text", skip=1, out=mined)
    measure("as it is, then mined", "run_mined", mined, begin_with="run", negatives={"text": "description_negative"})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=("shop", "molecules"))
    parser.add_argument("table", type=Path, nargs="?", help="of molecules: SMILES and description, separated by tabs")
    parser.add_argument("--titled", type=float, nargs="+", default=[1.0, 0.1])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", type=int, default=100_000, help="molecules, drawn at random")
    options = parser.parse_args()
    for titled in options.titled:
        found: dict[str, dict[str, list[float]]] = {}
        for seed in options.seeds:
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary) / "data"
                measured = (
                    measure_shop(folder, titled, seed)
                    if options.data == "shop"
                    else measure_molecules(options.table, folder, titled, seed, options.rows)
                )
            for condition, measures in measured.items():
                for name, value in measures.items():
                    found.setdefault(condition, {}).setdefault(name, []).append(value)
        print(f"\n{options.data}, {titled:.0%} of the training rows with a text; seeds {options.seeds}")
        for condition, measures in found.items():
            shown = [
                f"{name} {statistics.mean(values):.3f} ± {statistics.stdev(values) if len(values) > 1 else 0:.3f}"
                for name, values in measures.items()
            ]
            print(f"{condition:<24} {'; '.join(shown)}", flush=True)


if __name__ == "__main__":
    main()
