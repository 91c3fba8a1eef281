"""The files, Python code and commands of every page of docs/ work as printed, in a new folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from node_programs import link_packages

from multimodal.cli.main import main
from multimodal.core import registry

ROOT = Path(__file__).parents[1]
# they train for long, or several models
SLOW = [
    *("cleaning", "deployed", "drawings", "encoders", "evaluate", "objectives", "search", "search_engine"),
    *("search_pictures", "training_data", "upgrade"),
]
PAGES = [
    pytest.param(page, id=page.stem, marks=[pytest.mark.slow] if page.stem in SLOW else [])
    for page in sorted((ROOT / "docs").glob("*.md"))
    if "\n```" in page.read_text(encoding="utf-8")
]


def run_python(words: list[str]) -> None:
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)


def run_npm(words: list[str]) -> None:
    assert words[:2] == ["install", "--prefix"]
    link_packages(Path(words[2]))


def run_node(words: list[str]) -> None:
    subprocess.run(["node", *words], check=True, stdout=subprocess.DEVNULL, timeout=100)


PROGRAMS = {"python": run_python, "npm": run_npm, "node": run_node}


@pytest.fixture(autouse=True)
def _restore_modules_and_encoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Remove the modules that a page writes, and the encoders that they register, after it."""
    registry.registrations()
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MULTIMODAL_CACHE", os.environ.get("MULTIMODAL_CACHE") or str(Path.home() / ".cache/multimodal"))
    blocks = re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks
    for _, name, content in blocks:
        if name:
            Path(name).write_text(content, encoding="utf-8")
    for language, name, content in blocks:
        if language == "python" and not name:  # a named block is a module that later blocks import
            exec(compile(content, f"{page.name}", "exec"), {})
        elif language == "yaml" and not name:
            assert yaml.safe_load(content)
        elif language == "sh":
            for line in content.replace("\\\n", " ").splitlines():
                program, *words = shlex.split(line)
                if program in PROGRAMS:
                    PROGRAMS[program](words)
                    continue
                assert program == "multimodal"
                quiet = ["--trainer.enable_progress_bar", "false"] if words[0] == "fit" else []
                assert main([*words, *quiet]) == 0, line
