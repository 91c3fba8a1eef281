"""Every page of docs/ works as it stands there: its files, its Python, its commands, in a folder of their own."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
import yaml

from multimodal.cli.main import main

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_works(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MULTIMODAL_CACHE", os.environ.get("MULTIMODAL_CACHE") or str(Path.home() / ".cache/multimodal"))
    blocks = re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks
    for _, name, content in blocks:
        if name:
            Path(name).write_text(content, encoding="utf-8")
    for language, name, content in blocks:
        if language == "python":
            exec(compile(content, f"{page.name}", "exec"), {})
        elif language == "yaml" and not name:
            assert yaml.safe_load(content)
        elif language == "sh":
            for line in content.replace("\\\n", " ").splitlines():
                program, *words = shlex.split(line)
                assert program == "multimodal"
                quiet = ["--trainer.enable_progress_bar", "false"] if words[0] == "fit" else []
                assert main([*words, *quiet]) == 0, line
