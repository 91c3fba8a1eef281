"""An ensemble of runs, as a folder like theirs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from multimodal.core.embedder import Embedder
from multimodal.core.ensemble import ensemble
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.files import check_folder
from multimodal.core.run_folder import RUN_CONFIG, RUN_MODEL
from multimodal.core.yaml_file import read_yaml

HELD_BACK = ("table", "options", "approved", "key", "group", "split", "split_seed", "train", "validation", "test")
# setting that runs must agree on -> what follows if they do not
SAME = dict.fromkeys(HELD_BACK, "one may have learned what the other held back") | {
    "columns": "they read different values"
}


def ensemble_runs(runs: Sequence[str | Path], out: str | Path, weights: Sequence[float] | None = None) -> Embedder:
    """Write an ensemble of runs to a folder, which commands take like a run's.

    Where all runs held back the same rows, the folder has their ``data:``, so that ``evaluate`` measures it on these; where
    they did not, a note on standard error says why it has none.

    Args:
        runs: folders of runs or of saved models, see ``ensemble``.
        out: a new folder, or an empty one.
        weights: see ``ensemble``.

    Returns:
        The ensemble.

    Raises:
        UsageError: see ``ensemble``, or ``out`` is not a folder that can be written.
        MultimodalError: a model cannot be read, or ``out`` has files.
    """
    check_folder(out)
    out = Path(out)
    if out.exists() and any(out.iterdir()):
        raise MultimodalError(f"{out} is not empty; name a new folder for the ensemble.")
    joined = ensemble([Embedder.from_pretrained(run) for run in runs], weights)
    configs = [_config_of(Path(run)) for run in runs]
    reason = _why_without_data(runs, configs)
    joined.save_pretrained(out / RUN_MODEL)
    if reason is None:
        kept = {name: configs[0][name] for name in ("seed_everything", "data") if name in configs[0]}
        names = ", ".join(repr(str(run)) for run in runs)  # a path may have a line break
        text = f"# The data of an ensemble of {names}.\n{yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)}"
        (out / RUN_CONFIG).write_text(text, encoding="utf-8")
    else:
        print(
            f"{out} has no data of its own: {reason}. Evaluate it on rows that no model was trained on: --data.",
            file=sys.stderr,
        )
    return joined


def _config_of(run: Path) -> Mapping[str, Any]:
    path = run / RUN_CONFIG
    config = read_yaml(path) if path.is_file() else {}
    if not isinstance(config, dict) or not isinstance(config.get("data", {}), dict):
        raise UsageError(f"{path} is not the configuration of a run.")
    return config


def _why_without_data(runs: Sequence[str | Path], configs: Sequence[Mapping[str, Any]]) -> str | None:
    """Return why an ensemble of runs has no held-back rows that all of them held back; None: it has."""
    for run, config in zip(runs, configs, strict=True):
        if not config.get("data", {}).get("table"):
            return f"{run} does not name the table that it was trained on"
        for name, why in SAME.items():
            first, this = configs[0]["data"].get(name), config["data"].get(name)
            if first != this:
                differ = f"data.{name} is {first!r} in {runs[0]} and {this!r} in {run}"
                return f"{differ}, so that {why}"
    return None
