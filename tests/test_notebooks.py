"""The notebooks of docs/ run from top to bottom, in a process of their own, and are stored with their results."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs").rglob("*.ipynb"))
LARGEST = 500_000  # bytes of a stored notebook with its pictures


def results(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """Return the kinds of each cell's result, such as a picture; progress and tables on the way are not results."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [
        [kind for output in cell.outputs if output.output_type == "execute_result" for kind in sorted(output.data)]
        for cell in cells
    ]


def warnings(notebook: nbformat.NotebookNode) -> list[str]:
    texts = [
        output.text for cell in notebook.cells for output in cell.get("outputs", []) if output.get("name") == "stderr"
    ]
    return [text for text in texts if "Warning" in text]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_with_its_results(path: Path) -> None:
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert path.stat().st_size < LARGEST
    assert ["image/png", "text/plain"] in results(notebook)
    assert not warnings(notebook)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_gives_results_of_the_stored_kinds(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, 4)
    client = NotebookClient(notebook, timeout=3000, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    client.execute()  # an error in a cell is raised
    assert results(notebook) == results(nbformat.read(path, 4))
    assert not warnings(notebook)
