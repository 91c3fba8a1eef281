"""Which sections are measured, and that the command line knows their names without importing them."""

from __future__ import annotations

import pytest

from multimodal.cli.evaluate import SECTION_NAMES
from multimodal.core.errors import UsageError
from multimodal.evaluation.sections import BY_NAME, SECTIONS, chosen_sections


def test_the_command_line_knows_all_names() -> None:
    assert list(SECTION_NAMES) == BY_NAME


def test_sections_are_chosen_by_name_or_by_an_argument() -> None:
    quick = [name for name in BY_NAME if SECTIONS[name].is_quick]
    assert chosen_sections(None, [], default=False) == []
    assert chosen_sections(None, [], default=True) == quick
    assert set(chosen_sections("all", [], default=False)) == set(BY_NAME)
    assert chosen_sections(["missing", "space"], ["slices"], default=True) == ["space", "slices", "missing"]
    with pytest.raises(UsageError, match=r"no section 'spac'\. Did you mean 'space'"):
        chosen_sections("spac", [], default=False)
    with pytest.raises(UsageError, match="'classes' needs the argument 'label'"):
        chosen_sections("classes", [], default=False)
