"""Files of numpy, mapped into memory."""

from __future__ import annotations

from pathlib import Path
from tokenize import TokenError

import numpy as np


def map_npy(path: Path) -> np.memmap:
    """Map the array of an ``.npy`` file; numpy's parser of damaged headers raises exceptions of Python's own parser.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not an array, or is damaged.

    Examples:
        >>> np.save("vectors.npy", np.eye(2))
        >>> map_npy(Path("vectors.npy")).shape
        (2, 2)
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (SyntaxError, TokenError, EOFError, TypeError, MemoryError, OverflowError) as error:
        raise ValueError(f"its header is damaged ({error})") from error
    if not isinstance(array, np.memmap):
        raise ValueError("it is an archive, not an array")
    return array
