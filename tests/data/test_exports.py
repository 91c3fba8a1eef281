"""The names of ``multimodal.data`` can be imported, and are imported only when they are used."""

from __future__ import annotations

import subprocess
import sys

import multimodal.data


def test_every_listed_name_is_exported() -> None:
    assert (
        {"DataModule", "Samples", "Schema", "open_table"} <= set(multimodal.data.__all__) <= set(dir(multimodal.data))
    )
    for name in multimodal.data.__all__:
        assert getattr(multimodal.data, name).__name__ == name


def test_opening_a_table_imports_neither_torch_nor_lightning() -> None:
    program = (
        "import sys\nfrom multimodal.data import locate, open_table\nprint({'torch', 'lightning'} & set(sys.modules))\n"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "set()\n"
