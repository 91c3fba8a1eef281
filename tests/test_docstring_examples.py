"""The examples in docstrings print what they show.

Every module with a ``>>>`` in a docstring is a test. Examples can use the module's names, as usual in doctest. ``...``
matches anything, white space is not compared, numpy and torch print four digits, and the working folder is a new one. A
module whose class is registered with an extra that is not installed is skipped, as is one of ``NEEDS``.
"""

from __future__ import annotations

import ast
import doctest
import inspect
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from docstrings import FOLDERS, ROOT, module_name

# module or folder -> the library of an extra that its examples use
NEEDS = {"multimodal.evaluation.mteb_model": "mteb", "multimodal.serve": "fastapi"}
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Finder(doctest.DocTestFinder):
    """Finds decorated functions too, such as those of ``contextmanager``."""

    def _from_module(self, module: Any, object: Any) -> bool:
        return super()._from_module(module, inspect.unwrap(object))  # pyright: ignore[reportAttributeAccessIssue]


def docstrings(path: Path) -> Iterator[str]:
    """The docstrings with an example in a file, which is read without importing it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node) or ""
            if ">>>" in text:
                yield text


def modules_with_examples() -> list[Path]:
    paths = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    return [path for path in paths if any(docstrings(path))]


def missing_libraries(name: str) -> list[str]:
    """The libraries that a module's encoders or examples need and that are not installed."""
    from multimodal.core.extras import extra_of
    from multimodal.core.registry import registrations

    extras = [extra_of(r) for r in registrations() if r.cls.__module__ == name]
    missing = [library for extra in extras if extra is not None for library in extra.missing]
    needed = [library for module, library in NEEDS.items() if f"{name}.".startswith(f"{module}.")]
    return missing + [library for library in needed if find_spec(library) is None]


@pytest.mark.parametrize("path", modules_with_examples(), ids=module_name)
def test_the_examples_print_what_they_show(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = module_name(path)
    if missing := missing_libraries(name):
        pytest.skip(f"{', '.join(missing)} not installed")
    monkeypatch.chdir(tmp_path)
    module = import_module(name)
    tests = [test for test in Finder().find(module, name) if test.examples]
    reports: list[str] = []
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    with np.printoptions(precision=4, suppress=True):
        for test in tests:
            runner.run(test, out=reports.append)
    assert not reports, "".join(reports)
    written = sum(len(doctest.DocTestParser().get_examples(text)) for text in docstrings(path))
    assert runner.tries == written, f"{written} examples are written in {path.name}, {runner.tries} are run"
