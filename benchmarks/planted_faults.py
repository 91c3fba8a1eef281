"""Whether planted faults of data are found, and whether a model is better without them: the emoji of docs/datasets.md.

Planted in the training rows: 5 % of the texts are swapped among rows; 5 % of the rows are doubled under another key, the
picture saved again as a smaller JPEG, the name replaced by two of the keywords in another order. A fraction of the
training rows is a second split, so that some rows are doubled across splits. The validation
rows are kept as they are: the clean test.

Printed for each kind and overall: the precision at a recall of 0.6, in the order of the strengths; the recall at a precision of
0.8. Then, with --train, the measures on the clean test of a model trained with the faults, and of one trained with the right
suspicions approved: a person who goes through the strongest of each kind, as many as were planted, and approves those that
are right.

    python benchmarks/planted_faults.py emoji/emoji.csv [--seeds 0 1] [--train] [--steps 300]
"""

from __future__ import annotations

import argparse
import csv
import math
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

import multimodal as mm
from multimodal.data.approved import MISMATCHED
from multimodal.experiment.load import load_config
from multimodal.experiment.quiet import quiet_libraries

CONFIG = Path(__file__).parents[1] / "configs" / "emoji.yaml"
SHARE = 0.05
SECOND_SPLIT = 0.15
RECALL, PRECISION = 0.6, 0.8


@dataclass(frozen=True)
class Planted:
    """The table with faults, the keys of rows with a wrong text, and the keys of each doubled row, in order."""

    table: Path
    swapped: frozenset[str]
    doubled: frozenset[tuple[str, ...]]


def plant(source: Path, folder: Path, seed: int) -> Planted:
    """Write a table of the source's rows with faults to a folder."""
    rng = random.Random(seed)
    with source.open(encoding="utf-8", newline="") as file:
        rows = [row | {"image": str((source.parent / row["image"]).resolve())} for row in csv.DictReader(file)]
    clean = [row | {"split": "test"} for row in rows if row["split"] == "validation"]
    given = [row for row in rows if row["split"] == "train"]
    order = rng.sample(range(len(given)), len(given))
    count = round(SHARE * len(given))
    swapped, doubled = order[:count], order[count : 2 * count]
    for row in given:
        row["split"] = _split(rng)
    texts = [(given[n]["name"], given[n]["keywords"]) for n in swapped]
    for n, (name, keywords) in zip(swapped, texts[1:] + texts[:1], strict=True):
        given[n] |= {"name": name, "keywords": keywords}
    folder.mkdir(parents=True, exist_ok=True)
    pairs = []
    for row in [given[n] for n in doubled]:
        words = [word.strip() for word in row["keywords"].split(",") if word.strip()] or [row["name"]]
        rng.shuffle(words)
        key = f"{row['id']}_again"
        _save_again(Path(row["image"]), picture := folder / f"{key}.jpg")
        again = {"id": key, "image": str(picture.resolve()), "name": " ".join(words[:2]), "keywords": ", ".join(words)}
        given.append(again | {"split": _split(rng)})
        pairs.append(tuple(sorted((row["id"], key))))
    table = folder / "emoji.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(given + clean)
    return Planted(table, frozenset(given[n]["id"] for n in swapped), frozenset(pairs))


def _split(rng: random.Random) -> str:
    return "validation" if rng.random() < SECOND_SPLIT else "train"


def _save_again(source: Path, target: Path) -> None:
    picture = Image.open(source).convert("RGBA")
    white = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    white.resize((64, 64), Image.Resampling.LANCZOS).save(target, quality=85)


def is_right(line: dict[str, str], planted: Planted) -> bool:
    """Whether a suspicion is a planted fault; two rows of different splits are one item nevertheless."""
    if line["kind"] == MISMATCHED:
        return line["key"] in planted.swapped
    return tuple(sorted((line["key"], line["other key"]))) in planted.doubled


def report(kind: str, right: list[bool], planted: int) -> str:
    """Return a line of the table: precision at a recall, and recall at a precision, of suspicions in their order."""
    found = [sum(right[: n + 1]) for n in range(len(right))]
    precision = [hits / (n + 1) for n, hits in enumerate(found)]
    needed = math.ceil(RECALL * planted)
    at_recall = max((p for p, hits in zip(precision, found, strict=True) if hits >= needed), default=float("nan"))
    at_precision = max((hits for p, hits in zip(precision, found, strict=True) if p >= PRECISION), default=0) / planted
    return f"{kind:<24} {planted:>7} {len(right):>9} {at_recall:>11.2f} {at_precision:>11.2f}"


def train(planted: Planted, run: Path, steps: int, seed: int, approved: Path | None) -> dict[str, float]:
    """Train configs/emoji.yaml and return the measures on the clean test."""
    data = {"table": str(planted.table), "key": "id", "train": ["train", "validation"], "validation": "test"}
    data |= {"test": "test", "workers": 0, "keep_items": True, "approved": None if approved is None else str(approved)}
    length = {"max_steps": steps, "val_check_interval": steps, "enable_progress_bar": False}
    with quiet_libraries():
        model, module, trainer = load_config(
            CONFIG, {"run": str(run), "seed_everything": seed, "data": data, "trainer": length}
        )
        trainer.fit(model, datamodule=module)
    return {name: round(float(value), 3) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="emoji.csv, see docs/datasets.md")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--train", action="store_true", help="also train with the faults and without")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--work", type=Path, help="keep the tables and runs in this folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for seed in options.seeds:
            folder = (options.work or Path(temporary)) / f"seed{seed}"
            planted = plant(options.table, folder, seed)
            before = folder / "with_faults"
            measures = train(planted, before, options.steps if options.train else 1, seed, None)
            find(planted, before, folder / "faults.csv", seed)
            if options.train:
                after = train(planted, folder / "approved", options.steps, seed, folder / "faults.csv")
                for name in ("val/text->image/mrr", "val/image->text/mrr", "val/text->image/recall@10"):
                    print(
                        f"{name.removeprefix('val/'):<24} with faults {measures[name]:.3f}, approved {after[name]:.3f}"
                    )


def find(planted: Planted, run: Path, out: Path, seed: int) -> None:
    """Find the faults, print how many of them are right, and write the approved table."""
    mm.find_faults(run, out=out, split=["train", "validation"])
    with out.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    right = [is_right(line, planted) for line in lines]
    is_pair = [line["kind"] == MISMATCHED for line in lines]
    of_split = {}
    with planted.table.open(encoding="utf-8", newline="") as file:
        of_split = {row["id"]: row["split"] for row in csv.DictReader(file)}
    across = sum(of_split[a] != of_split[b] for a, b in planted.doubled)
    print(f"\nseed {seed}: {'kind':<16} planted suspected  prec@rec.6  rec@prec.8")
    print(report("mismatched", [r for r, p in zip(right, is_pair, strict=True) if p], len(planted.swapped)))
    print(report("doubled", [r for r, p in zip(right, is_pair, strict=True) if not p], len(planted.doubled)))
    split_of_pairs = [r for r, line in zip(right, lines, strict=True) if line["kind"] == "duplicate across splits"]
    print(report("  of these across splits", split_of_pairs, across))
    print(report("all, by strength", right, len(planted.swapped) + len(planted.doubled)))
    left = {True: len(planted.swapped), False: len(planted.doubled)}
    for line, found, kind in zip(lines, right, is_pair, strict=True):
        line["approve"] = "yes" if found and left[kind] > 0 else "no"
        left[kind] -= 1
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


if __name__ == "__main__":
    main()
