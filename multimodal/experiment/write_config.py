"""Writing a run's configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from multimodal.core.run_folder import RUN_CONFIG
from multimodal.experiment.class_paths import name_encoders


def write_config(folder: Path, config: Mapping[str, Any], comments: Sequence[str] = ()) -> None:
    """Write a run's configuration, its encoders by their registered names.

    Args:
        folder: the run's folder; it is made if it is missing.
        config: JSON values.
        comments: lines that the file begins with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(name_encoders(dict(config)), sort_keys=False, allow_unicode=True)
    (folder / RUN_CONFIG).write_text("".join(f"# {line}\n" for line in comments) + text, encoding="utf-8")
