"""Things with a name and a code, a small model of both trained on the spot, and people who ask for them in other words."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multimodal import fit
from multimodal.core.embedder import Embedder
from multimodal.core.registry import create
from multimodal.data.datamodule import DataModule
from multimodal.data.run_data import load_run_data
from multimodal.search.index import Index
from multimodal.training.module import EmbedderModule

COLOURS = ("red", "blue", "green", "white", "black", "brown")
THINGS = ("cup", "jug", "pot", "bowl", "dish", "vase")
SIZES = ("small", "large", "tiny", "huge", "flat", "tall")
OTHER_COLOURS = ("crimson", "azure", "emerald", "ivory", "ebony", "tan")
OTHER_THINGS = ("mug", "pitcher", "kettle", "basin", "plate", "urn")
OTHER_SIZES = ("little", "big", "mini", "giant", "low", "high")
OTHER_WORDS: dict[str, str] = dict(
    zip((*COLOURS, *THINGS, *SIZES), (*OTHER_COLOURS, *OTHER_THINGS, *OTHER_SIZES), strict=True)
)


def rows() -> list[dict[str, str]]:
    """216 things; a tenth of them is for validation, a fifth for the test."""
    draws = np.random.default_rng(0)
    parts = draws.permutation(np.repeat(["train", "validation", "test"], [151, 22, 43]))
    return [
        {
            "sku": f"{colour}-{thing}-{size}",
            "name": f"{size} {colour} {thing}",
            "code": f"c{COLOURS.index(colour)} t{THINGS.index(thing)} s{SIZES.index(size)}",
            "part": str(part),
        }
        for (colour, thing, size), part in zip(product(COLOURS, THINGS, SIZES), parts, strict=True)
    ]


def trained_run(folder: Path, steps: int = 400) -> Path:
    """Train a small model of names and codes; the table is in the folder too."""
    torch.manual_seed(0)
    table = folder / "things.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    model = EmbedderModule({name: create("text", "bag", width=32, vocab_size=200) for name in ("text", "code")}, dim=16)
    data = DataModule(str(table), {"text": "name", "code": "code"}, key="sku", split="part", batch_size=32)
    settings: dict[str, Any] = {"max_steps": steps, "val_check_interval": steps, "check_val_every_n_epoch": None}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "precision": "32-true"}
    fit(model, data, folder / "run", **settings, **quiet)
    return folder / "run"


def indexed(run: Path, folder: Path) -> Path:
    """Index all rows of a run's table."""
    data = load_run_data(run)
    index = Index.from_table(Embedder.from_pretrained(run), data.samples)
    index.save(folder, engine="exact")
    return folder


def in_other_words(row: dict[str, str]) -> str:
    """The name of a thing, in words that the model was not trained on."""
    return " ".join(OTHER_WORDS[word] for word in row["name"].split())


def feedback(file: Path, wrong: float = 0.05, seed: int = 0, users: int = 20) -> Path:
    """Write what people looked for who asked for things, but those of the test, in other words; some name any row."""
    draws, things = np.random.default_rng(seed), [row for row in rows() if row["part"] != "test"]
    with file.open("w") as opened:
        for number, row in enumerate(things):
            for click in range(2):
                key = row["sku"] if draws.random() >= wrong else things[draws.integers(len(things))]["sku"]
                line = {"verdict": "missing", "key": key, "modality": "code", "query": {"text": in_other_words(row)}}
                opened.write(json.dumps(line | {"user": f"u{(number + click) % users}"}) + "\n")
    return file
