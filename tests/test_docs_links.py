"""Every relative link of every Markdown file leads to a file, and its anchor to a heading, as on GitHub.

The build of the site also checks the pages of docs/; this test covers README.md and other files outside the site too.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from urllib.parse import unquote

import pytest

import multimodal
from multimodal import objectives

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / ".github").rglob("*.md"))]
SITE = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
REFERENCE = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "reference.md").read_text(encoding="utf-8"), re.MULTILINE)


def prose(text: str) -> str:
    """A page without its code, where brackets are not links and # is not a heading."""
    return re.sub(r"`[^`\n]*`", "`code`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def links(text: str) -> list[str]:
    targets = re.findall(r"\]\(([^()\s]+(?:\([^()\s]*\))?)\)", prose(text))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings by GitHub's rule: lower case, no punctuation, hyphens for spaces."""
    slugs: set[str] = set()
    outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#+ +(.*?) *#*$", outside, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number = next(n for n in range(len(slugs) + 1) if (f"{slug}-{n}" if n else slug) not in slugs)
        slugs.add(f"{slug}-{number}" if number else slug)
    return slugs


def broken(page: Path) -> list[str]:
    errors = []
    for target in links(page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        file = (page.parent / unquote(path)).resolve() if path else page
        if not file.is_relative_to(ROOT) or not file.exists():
            errors.append(f"{target}: no such file")
        elif anchor and anchor not in anchors(file.read_text(encoding="utf-8")):
            errors.append(f"{target}: no such heading")
    return errors


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_of_a_page_resolve(page: Path) -> None:
    assert broken(page) == []


def test_broken_links_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs" / "page.md"
    text = "# A `b`, c!\n[1](page.md#a-b-c) [2](#a) [3](gone.md) `[4](x)` [5](https://x.org/y)\n```\n# d\n[6](z)\n```\n"
    monkeypatch.setattr(Path, "read_text", lambda self, encoding=None: text)
    monkeypatch.setattr(Path, "exists", lambda self: self.name == "page.md")
    assert broken(page) == ["#a: no such heading", "gone.md: no such file"]


def test_the_menu_of_the_site_has_every_page() -> None:
    in_menu = {file for entry in SITE["nav"] for file in entry.values()}
    assert in_menu == {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}


def test_the_reference_has_every_public_name() -> None:
    expected = {f"multimodal.{name}" for name in multimodal.__all__ if name != "__version__"}
    expected |= {f"multimodal.objectives.{name}" for name in objectives.__all__} - {"multimodal.objectives.Embeddings"}
    assert set(REFERENCE) == expected
    assert len(REFERENCE) == len(expected)
