"""The demonstration, as ``make demo`` runs it: train on the glyphs, evaluate on unseen characters.

Printed are the seconds of both commands and the recalls between text and image.

    python benchmarks/demo.py [--device cuda] [--workers 12] [--set trainer.max_steps=20]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from device import add_options, record

CONFIG = Path(__file__).parents[1] / "configs" / "glyphs.yaml"
SPLIT = "unseen_characters"
PAIRS = ("text->image", "image->text")


def seconds(*arguments: str) -> tuple[float, str]:
    """How long a command of ours takes, and what it prints."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "multimodal", *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    return time.perf_counter() - start, done.stdout


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--workers", type=int, help="processes that read data; by default those of the configuration")
    p.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="other settings of the configuration")
    add_options(p)
    options = p.parse_args()
    more = [f"--{setting}" for setting in options.set]
    more += [] if options.workers is None else [f"--data.workers={options.workers}"]
    accelerator = "gpu" if options.device == "cuda" else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        run = str(Path(folder) / "run")
        fit = ["fit", "--config", str(CONFIG), "--run", run, f"--trainer.accelerator={accelerator}", *more]
        trained, _ = seconds(*fit)
        evaluated, document = seconds("evaluate", run, "--split", SPLIT, "--json")
    pairs = json.loads(document)["pairs"]
    found = {pair: {k: pairs[pair][k] for k in ("recall@1", "recall@5", "queries", "pool")} for pair in PAIRS}
    print(f"trained in {trained:.0f} s, evaluated in {evaluated:.0f} s")
    for pair, measures in found.items():
        print(f"{pair} in {SPLIT!r}: R@1 {measures['recall@1']:.3f}, R@5 {measures['recall@5']:.3f}")
    record(options, {"trained_seconds": trained, "evaluated_seconds": evaluated, "pairs": found})


if __name__ == "__main__":
    main()
