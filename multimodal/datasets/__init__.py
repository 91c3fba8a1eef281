"""Tables that need no download, opened by name, as by ``data.table: glyphs``.

- ``glyphs``: characters as pictures, outlines and names; what the demo trains on.
- ``sample:emoji``, ``sample:molecules``, ``sample:spoken_digits``: small samples made when they are opened, in seconds and
  always the same, so that the configurations of these names run unchanged. docs/datasets.md names the real data.
"""

from __future__ import annotations

from importlib import import_module

from multimodal.core.table import Table

# name -> the module and what makes the table in it; "sample:" cannot be mistaken for a user's file or folder
TABLES = {
    "glyphs": ("multimodal.datasets.glyphs", "Glyphs"),
    "sample:emoji": ("multimodal.datasets.sample_emoji", "sample_emoji"),
    "sample:molecules": ("multimodal.datasets.sample_molecules", "sample_molecules"),
    "sample:spoken_digits": ("multimodal.datasets.sample_spoken_digits", "sample_spoken_digits"),
}


def load(name: str) -> Table:
    """The table of a name in ``TABLES``."""
    module, make = TABLES[name]
    return getattr(import_module(module), make)()
