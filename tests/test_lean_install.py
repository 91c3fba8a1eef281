"""Without extras, the main commands work on a table; commands that need an extra say what to install."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WITHOUT = """
import importlib.metadata, json, sys
from importlib.machinery import PathFinder

MISSING, DISTRIBUTIONS = map(set, json.loads(sys.argv[1]))

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in MISSING else super().find_spec(name, path, target)

def from_name(name, found=importlib.metadata.Distribution.from_name):
    if name.lower().replace("_", "-") in DISTRIBUTIONS:
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)

sys.meta_path[:] = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
importlib.metadata.Distribution.from_name = from_name
from multimodal.cli.main import main
codes = [main(command) for command in json.loads(sys.argv[2])]
assert not MISSING & {name.partition(".")[0] for name in sys.modules}
print(json.dumps(codes))
"""


def optional() -> tuple[list[str], list[str]]:
    """The modules and the distributions that the extras install."""
    extras = [line for name, lines in PROJECT["optional-dependencies"].items() if name != "dev" for line in lines]
    distributions = {canonicalize_name(Requirement(line).name) for line in extras} - {"multimodal"}
    modules = [
        module for module, by in packages_distributions().items() if distributions & set(map(canonicalize_name, by))
    ]
    return modules, sorted(distributions)


@pytest.mark.slow
def test_the_main_commands_need_no_extra(tmp_path: Path) -> None:
    lines = [f"s{n},thing {n},{'odd' if n % 2 else 'even'} number {n},{n / 4},{n % 7}" for n in range(60)]
    (tmp_path / "pairs.csv").write_text("\n".join(["sku,title,words,price,size", *lines]) + "\n")
    encoders = {
        "text": {"class_path": "transformer", "init_args": {"width": 16, "layers": 1, "heads": 2}},
        "tabular": {"class_path": "mlp", "init_args": {"width": 16}},
    }
    config = {
        "run": "run",
        "data": {
            "table": "pairs.csv",
            "columns": {"text": ["title", "words"], "tabular": "price+size"},
            "batch_size": 8,
        },
        "model": {"dim": 8, "encoders": encoders},
        "trainer": {"max_steps": 2, "val_check_interval": 2, "check_val_every_n_epoch": None, "accelerator": "cpu"},
    }
    (tmp_path / "pairs.yaml").write_text(json.dumps(config))
    commands = [
        ["fit", "--config", "pairs.yaml", "--trainer.enable_progress_bar", "false"],
        ["evaluate", "run", "--split", "validation"],
        ["embed", "run", "--out", "embeddings"],
        ["index", "embeddings", "--out", "index"],
        ["search", "run", "index", "--text", "thing 7", "-k", "2"],
    ]
    with_extras = [["prepare", "pairs.csv", "--out", "prepared"]]
    missing = optional()
    assert {"imagehash", "datasketch", "rdkit", "transformers", "onnx", "soundfile", "peft"} <= set(missing[0])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, json.dumps(missing), json.dumps([*commands, *with_extras])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [0] * len(commands) + [2] * len(with_extras), done.stderr
    errors = [line for line in done.stderr.splitlines() if "pip install" in line]
    assert [line.partition("pip install ")[2] for line in errors] == ["'multimodal[prepare]'."]
