"""Tables that need no download, opened by name: ``multimodal.data.open_table("glyphs")``."""

from __future__ import annotations

from importlib import import_module

TABLES = {"glyphs": ("multimodal.datasets.glyphs", "Glyphs")}


def load(name: str):
    module, cls = TABLES[name]
    return getattr(import_module(module), cls)()
