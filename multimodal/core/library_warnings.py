"""Warnings of libraries that concern neither us nor the user."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

IMPORT_WARNINGS = (  # pattern of the message, category
    (".*torch.jit.script.* is deprecated", FutureWarning),  # torchvision and torch-geometric call it
    ("IProgress not found", Warning),  # of tqdm, in notebooks without ipywidgets
)


@contextmanager
def ignore_import_warnings() -> Iterator[None]:
    """Ignore, in the block, what libraries cause when they are imported."""
    with warnings.catch_warnings():
        for message, category in IMPORT_WARNINGS:
            warnings.filterwarnings("ignore", message, category)
        yield
