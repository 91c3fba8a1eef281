"""A replacement of ``multimodal fit`` in tests of sweeps: it copies a run, logs a measure, and fails if asked to.

It reads ``plan.json`` in the working folder: ``prepared`` (the run to copy), ``fail`` (a text in the arguments -> what to
print), ``wait`` (a text in the arguments of runs that wait for a signal before their end), and adds a line to ``starts.txt``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path


def main() -> int:
    plan = json.loads(Path("plan.json").read_text())
    arguments = " ".join(sys.argv[1:])
    options: dict[str, str] = {}
    for argument in sys.argv[1:]:
        key, _, options[key[2:]] = argument.partition("=")
    run = Path(options["run"])
    checkpoint = run / "checkpoints" / "last.ckpt"
    with Path("starts.txt").open("a") as file:
        file.write(f"{run.name} {'resumed' if checkpoint.exists() else 'begun'} {os.environ.get('OMP_NUM_THREADS')}\n")
    print("Training ...")
    for text, said in plan.get("fail", {}).items():
        if text in arguments:
            print(f"a traceback\nmultimodal fit: {said}\nmore", file=sys.stderr)
            return 1
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    if plan.get("wait", "nothing") in arguments and not checkpoint.exists():
        received: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
        Path(f"{run.name}.waits").touch()
        while not received:
            time.sleep(0.01)
        time.sleep(0.3)  # a second signal would come meanwhile
        checkpoint.write_text(f"after {len(received)} signal")
        return 143
    dim = int(options.get("model.dim", 8))
    value = plan.get("values", {}).get(str(dim), dim / 1000)
    if "lr" in arguments:
        value = -abs(float(options["model.optimizer.init_args.lr"]) - 0.01)
    (run / "logs" / "version_0").mkdir(parents=True)
    rows = ["step,train/loss,val/recall@1,val/text->tabular/mean_rank", "4,1.5,,", f"5,,{value},{100 - dim}"]
    (run / "logs" / "version_0" / "metrics.csv").write_text("\n".join(rows))
    shutil.copytree(Path(plan["prepared"]) / "model", run / "model")
    shutil.copy(Path(plan["prepared"]) / "config.yaml", run / "config.yaml")
    return 0


if __name__ == "__main__":
    sys.exit(main())
