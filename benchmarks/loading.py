"""Loading speed: from files to ready batches, against open_clip's loader and torch-geometric's.

Pictures: JPEG files of 640 x 480 pixels, made on the spot, with a caption each, to batches for a 224-pixel encoder.
open_clip's side is its CSV data set (``open_clip_train.data.CsvDataset``, copied here because its module does not import
without webdataset) under its own transform for evaluation and its own tokenizer; ours reads the same CSV file, with the
image encoder's and the text encoder's processors, to uint8 pixels and trimmed tokens.

Molecules: SMILES to batches of graphs. torch-geometric's side is ``from_smiles`` under its own DataLoader; ours is the
molecule encoder's processor, without the fingerprint, which it does not make either.

Both sides have the same workers and take turns within one run. Printed are the medians and the ratios of each round.

    python benchmarks/loading.py [--workers 1] [--rounds 5] [--pictures 1500] [--molecules 10000]
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from multimodal.core import registry
from multimodal.core.encoder import Processor
from multimodal.core.rejects import Rejects
from multimodal.data.loaders import ordered_loader
from multimodal.data.samples import Samples

BATCH = 128


def write_pictures(folder: Path, count: int) -> Path:
    """Smooth random pictures, which JPEG packs as well as photographs, and a CSV file of them."""
    rng = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    with (folder / "pairs.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["picture", "title"])
        for number in range(count):
            coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
            name = f"pictures/{number}.jpg"
            coarse.resize((640, 480), Image.Resampling.BICUBIC).save(folder / name, quality=90)
            rows.writerow([name, f"picture number {number} of a series of {count}"])
    return folder / "pairs.csv"


class OpenClipCsv(Dataset[Any]):
    """``open_clip_train.data.CsvDataset`` of open_clip 3.3."""

    def __init__(self, table: Path, transforms: Callable[..., Any], tokenizer: Callable[..., Any]) -> None:
        import pandas as pd

        frame = pd.read_csv(table)
        self.images = [str(table.parent / name) for name in frame["picture"]]
        self.captions = frame["title"].tolist()
        self.transforms, self.tokenize = transforms, tokenizer

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, index: int) -> Any:
        images = self.transforms(Image.open(str(self.images[index])))
        return images, self.tokenize([str(self.captions[index])])[0]


class FromSmiles(Dataset[Any]):
    def __init__(self, smiles: list[str]) -> None:
        self.smiles = smiles

    def __len__(self) -> int:
        return len(self.smiles)

    def __getitem__(self, index: int) -> Any:
        from torch_geometric.utils import from_smiles

        return from_smiles(self.smiles[index])


def ours(samples: Samples, processors: dict[str, Processor], workers: int) -> Iterable[Any]:
    rows = np.arange(len(samples))
    return ordered_loader(samples, rows, processors, BATCH, Rejects(0.0, len(rows)), {"num_workers": workers})


def compare(title: str, count: int, rounds: int, sides: dict[str, Callable[[], Iterable[Any]]]) -> None:
    speeds: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(rounds):
        for side in list(sides) if number % 2 else list(sides)[::-1]:  # neither always comes first
            start = time.perf_counter()
            for _ in sides[side]():
                pass
            speeds[side].append(count / (time.perf_counter() - start))
    our, peer = sides
    ratios = [a / b for a, b in zip(speeds[our], speeds[peer], strict=True)]
    medians = ", ".join(f"{side} {statistics.median(values):,.0f}" for side, values in speeds.items())
    print(f"{title}: {medians} a second (medians)", flush=True)
    print(f"  ratio: median {statistics.median(ratios):.2f}, all {', '.join(f'{r:.2f}' for r in ratios)}", flush=True)


def pictures(count: int, rounds: int, workers: int) -> None:
    import open_clip

    image = registry.create("image", "cnn", size=224, channels=3, stem="standard").processor
    text = registry.create("text", "transformer").processor
    with tempfile.TemporaryDirectory() as folder:
        table = write_pictures(Path(folder), count)
        samples = Samples.of(str(table), {"image": "picture", "text": "title"}, access="memory")
        text.fit(samples.values("text", np.arange(len(samples))))
        transform: Any = open_clip.image_transform(224, is_train=False)
        theirs = OpenClipCsv(table, transform, open_clip.get_tokenizer("ViT-B-32"))
        compare(
            f"pictures, {workers} workers",
            count,
            rounds,
            {
                "ours": lambda: ours(samples, {"image": image, "text": text}, workers),
                "open_clip": lambda: DataLoader(theirs, BATCH, num_workers=workers),
            },
        )


def molecules(count: int, rounds: int, workers: int) -> None:
    from torch_geometric.loader import DataLoader as GeometricLoader

    smiles = smiles_of(count)
    samples = Samples.of([{"smiles": value} for value in smiles], {"graph": "smiles"})
    graph = registry.create("graph", "molecule", bits=0).processor
    compare(
        f"molecules, {workers} workers",
        count,
        rounds,
        {
            "ours": lambda: ours(samples, {"graph": graph}, workers),
            "torch-geometric": lambda: GeometricLoader(FromSmiles(smiles), BATCH, num_workers=workers),  # pyright: ignore
        },
    )


def smiles_of(count: int) -> list[str]:
    """Peptides of random residues: about 30 atoms with rings, charges and stereo centres."""
    rng = np.random.default_rng(0)
    sides = ("C", "CC(C)C", "Cc1ccccc1", "CO", "CC(=O)[O-]", "CCCC[NH3+]", "Cc1c[nH]c2ccccc12", "CS")
    return ["".join(f"N[C@@H]({sides[n]})C(=O)" for n in rng.integers(0, len(sides), 4)) + "O" for _ in range(count)]


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--workers", type=int, default=1)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--pictures", type=int, default=1500)
    p.add_argument("--molecules", type=int, default=10_000)
    options = p.parse_args()
    warnings.filterwarnings("ignore")
    pictures(options.pictures, options.rounds, options.workers)
    molecules(options.molecules, options.rounds, options.workers)


if __name__ == "__main__":
    main()
