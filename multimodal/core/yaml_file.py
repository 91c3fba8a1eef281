"""Reading YAML configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from multimodal.core.errors import MultimodalError


def read_yaml(path: Path) -> Any:
    """Read a configuration: numbers, strings, lists and mappings; no other objects are made.

    Raises:
        MultimodalError: the file is missing or is not YAML.
    """
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise MultimodalError(f"The configuration {path} cannot be read: {error}") from error
