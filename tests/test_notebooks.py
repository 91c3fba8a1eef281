"""The notebooks of docs/ run from top to bottom, in a process of their own, and are stored with their results."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs").rglob("*.ipynb"))
LARGEST = 500_000  # bytes of a stored notebook with its pictures


def outputs(path: Path) -> dict[str, list[nbformat.NotebookNode]]:
    return {cell.source: cell.outputs for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_with_its_results(path: Path) -> None:
    nbformat.validate(nbformat.read(path, 4))
    assert path.stat().st_size < LARGEST
    stored = outputs(path)
    assert any("image/png" in output.get("data", {}) for found in stored.values() for output in found)
    warnings = [output for found in stored.values() for output in found if output.get("name") == "stderr"]
    assert not warnings


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_gives_results_of_the_stored_kinds(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, 4)
    client = NotebookClient(notebook, timeout=3000, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    client.execute()  # an error in a cell is raised
    for cell in notebook.cells:
        if cell.cell_type == "code":
            kinds = [sorted(output.get("data", {})) for output in outputs(path)[cell.source]]
            assert [sorted(output.get("data", {})) for output in cell.outputs] == kinds, cell.source
    assert not [
        output for cell in notebook.cells for output in cell.get("outputs", []) if output.get("name") == "stderr"
    ]
