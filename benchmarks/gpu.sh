#!/usr/bin/env bash
# The figures that matter on a GPU, in one JSON file, within eight minutes:
#
#   benchmarks/gpu.sh [FILE]                  default: gpu.json
#
# PYTHON names the interpreter (default .venv/bin/python), WORKERS the processes that read data (default: the cores less
# two), MINILM the folder of all-MiniLM-L6-v2 where its package is not installed. Each part has a limit, so that a slow
# machine leaves out a part and not the rest; what was left out is named at the end, and in the file.
set -u
cd "$(dirname "$0")/.."
out=${1:-gpu.json}
python=${PYTHON:-.venv/bin/python}
cores=$(nproc)
workers=${WORKERS:-$((cores > 2 ? cores - 2 : 1))}
lines=$(mktemp)
trap 'rm -f "$lines"' EXIT
left_out=()

part() { # limit in seconds, script, settings
    local limit=$1 script=$2
    shift 2
    echo "== $script $*"
    timeout --kill-after=5 "$limit" "$python" -u "benchmarks/$script" --device "${DEVICE:-cuda}" --json "$lines" "$@" ||
        left_out+=("$script $*")
}

# encoders of open_clip's ViT-B-32 in bfloat16
part 130 train_step.py --arch ViT-B-32 --batch-size 256 --steps 18 --rounds 3
# losses: TF32, then float32
part 50 objectives.py --precision high --rounds 3
part 70 objectives.py --precision highest --rounds 3
part 75 gradient_cache.py --arch ViT-B-32 --precision bfloat16 --sizes 1024 4096 --part 256 --rounds 2
part 55 encode.py --texts 20000 --rounds 2 --threads "$workers" ${MINILM:+--model "$MINILM"}
part 95 demo.py --workers "$workers"

"$python" - "$lines" "$out" ${left_out[@]+"${left_out[@]}"} <<'PYTHON'
import json
import sys
from pathlib import Path

lines, out, *left_out = sys.argv[1:]
entries = [json.loads(line) for line in Path(lines).read_text(encoding="utf-8").splitlines()]
Path(out).write_text(json.dumps({"left_out": left_out, "entries": entries}, indent=1) + "\n", encoding="utf-8")
print(f"{len(entries)} parts in {out}" + "".join(f"\nleft out: {part}" for part in left_out))
PYTHON
[ ${#left_out[@]} -eq 0 ]
