"""Warnings of libraries that concern neither us nor the user."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ignore_import_warnings() -> Iterator[None]:
    """Ignore, in the block, what torchvision and torch-geometric cause when they are imported: they call torch.jit.script."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.script.* is deprecated", category=FutureWarning)
        yield
