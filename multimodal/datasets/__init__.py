"""Tables that need no download and are opened by name, for example with ``data.table: glyphs``.

- ``glyphs``: characters as images, outlines and names; the training data of the demo.
- ``sample:emoji``, ``sample:molecules``, ``sample:spoken_digits``: small samples that are generated when they are opened, in
  seconds and always the same, so that the configurations of these names run unchanged. docs/datasets.md lists the real data.
"""

from __future__ import annotations

from importlib import import_module

from multimodal.core.table import Table

# name -> the module and its class or function that returns the table; no file or folder of a user starts with "sample:"
TABLES = {
    "glyphs": ("multimodal.datasets.glyphs", "Glyphs"),
    "sample:emoji": ("multimodal.datasets.sample_emoji", "sample_emoji"),
    "sample:molecules": ("multimodal.datasets.sample_molecules", "sample_molecules"),
    "sample:spoken_digits": ("multimodal.datasets.sample_spoken_digits", "sample_spoken_digits"),
}


def load(name: str) -> Table:
    """Open the table with a name in ``TABLES``."""
    module, factory = TABLES[name]
    return getattr(import_module(module), factory)()
