"""Loading speed: from files to ready batches, against open_clip's loader and torch-geometric's.

Pictures: JPEG files of 640 x 480 pixels, made on the spot, with a caption each, to batches for a 224-pixel encoder.
open_clip's side is its CSV data set (``open_clip_train.data.CsvDataset``, copied here because its module does not import
without webdataset) under its own transform for evaluation and its own tokenizer; ours reads the same CSV file, with the
image encoder's and the text encoder's processors, to uint8 pixels and trimmed tokens.

Molecules: SMILES to batches of graphs. torch-geometric's side is ``from_smiles`` under its own DataLoader; ours is the
molecule encoder's processor, without the fingerprint, which it does not make either.

Both sides have the same workers and take turns within one run. With ``--device cuda`` the batches are copied to the GPU too,
from pinned memory. Printed are the medians and the ratios of each round.

    python benchmarks/loading.py [--workers 1] [--rounds 5] [--pictures 1500] [--molecules 10000] [--device cuda]
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from device import Device, add_options, clock, record
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


def ours(samples: Samples, processors: dict[str, Processor], options: dict[str, Any]) -> Iterable[Any]:
    rows = np.arange(len(samples))
    return ordered_loader(samples, rows, processors, BATCH, Rejects(0.0, len(rows)), options)


def loader_options(options: argparse.Namespace) -> dict[str, Any]:
    return {"num_workers": options.workers, "pin_memory": options.device == "cuda"}


def copy_to(device: Device, batch: Any) -> None:
    for part in batch if isinstance(batch, list | tuple) else [batch]:
        part.to(device, non_blocking=True)


def compare(
    title: str, count: int, options: argparse.Namespace, sides: dict[str, Callable[[], Iterable[Any]]]
) -> dict[str, Any]:
    rounds = options.rounds
    speeds: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(rounds):
        for side in list(sides) if number % 2 else list(sides)[::-1]:  # neither always comes first
            start = clock(options.device)
            for batch in sides[side]():
                if options.device == "cuda":
                    copy_to(options.device, batch)
            speeds[side].append(count / (clock(options.device) - start))
    our, peer = sides
    ratios = [a / b for a, b in zip(speeds[our], speeds[peer], strict=True)]
    medians = {side: statistics.median(values) for side, values in speeds.items()}
    shown = ", ".join(f"{side} {median:,.0f}" for side, median in medians.items())
    print(f"{title}: {shown} a second (medians)", flush=True)
    print(f"  ratio: median {statistics.median(ratios):.2f}, all {', '.join(f'{r:.2f}' for r in ratios)}", flush=True)
    return {"a_second": medians, "ratio": statistics.median(ratios), "ratios": ratios}


def pictures(options: argparse.Namespace) -> dict[str, Any]:
    import open_clip

    image = registry.create("image", "cnn", size=224, channels=3, stem="standard").processor
    text = registry.create("text", "transformer").processor
    with tempfile.TemporaryDirectory() as folder:
        table = write_pictures(Path(folder), options.pictures)
        samples = Samples.of(str(table), {"image": "picture", "text": "title"}, access="memory")
        text.fit(samples.values("text", np.arange(len(samples))))
        transform: Any = open_clip.image_transform(224, is_train=False)
        theirs = OpenClipCsv(table, transform, open_clip.get_tokenizer("ViT-B-32"))
        return compare(
            f"pictures, {options.workers} workers",
            options.pictures,
            options,
            {
                "ours": lambda: ours(samples, {"image": image, "text": text}, loader_options(options)),
                "open_clip": lambda: DataLoader(theirs, BATCH, **loader_options(options)),
            },
        )


def molecules(options: argparse.Namespace) -> dict[str, Any]:
    from torch_geometric.loader import DataLoader as GeometricLoader

    smiles = smiles_of(options.molecules)
    samples = Samples.of([{"smiles": value} for value in smiles], {"graph": "smiles"})
    graph = registry.create("graph", "molecule", bits=0).processor
    return compare(
        f"molecules, {options.workers} workers",
        options.molecules,
        options,
        {
            "ours": lambda: ours(samples, {"graph": graph}, loader_options(options)),
            "torch-geometric": lambda: GeometricLoader(FromSmiles(smiles), BATCH, **loader_options(options)),  # pyright: ignore
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
    add_options(p)
    options = p.parse_args()
    warnings.filterwarnings("ignore")
    record(options, {"pictures": pictures(options), "molecules": molecules(options)})


if __name__ == "__main__":
    main()
