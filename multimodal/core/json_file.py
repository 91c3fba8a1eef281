"""Reading JSON files that others may have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 16 * 2**20  # Python's values have up to 25 bytes for each byte of JSON


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Read a JSON file of a bounded size and depth.

    Args:
        path: the file.
        max_bytes: its largest size.

    Raises:
        ValueError: the file is larger, nested too deeply, or not JSON in UTF-8.
        OSError: the file cannot be read.

    Examples:
        >>> _ = Path("numbers.json").write_text("[1, 2]")
        >>> read_json(Path("numbers.json"))
        [1, 2]
    """
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"{path.name} is larger than {max_bytes >> 20} MiB")
    try:
        return json.loads(content.decode("utf-8"))
    except RecursionError as error:
        raise ValueError(f"{path.name} is nested too deeply") from error
