"""Captions from a row's other columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from multimodal.prepare.near_texts import fold
from multimodal.prepare.synthesize.recipe import Made, Recipe
from multimodal.prepare.synthesize.templates import Template


class Captions(Recipe):
    """Writes captions from templates, the first of them in random order that can be filled.

    A template with a column whose value the row does not have is skipped, and so is a caption that the row has already.

    Args:
        column: the column of texts that captions are written to.
        templates: the templates.
        count: captions for each row, at least 1.

    Examples:
        >>> captions = Captions("title", [Template.parse("a {colour} {kind}", ["colour", "kind"])])
        >>> captions.make({"colour": "red", "kind": "cup", "title": "my mug"}, np.random.default_rng(0))
        [Made(column='title', value='a red cup', made_by='caption: a {colour} {kind}')]
    """

    name = "captions"

    def __init__(self, column: str, templates: Sequence[Template], count: int = 1) -> None:
        self.column, self.templates, self.count = column, templates, count

    def make(self, values: Mapping[str, Any], rng: np.random.Generator) -> list[Made]:
        made: dict[str, Made] = {}
        own = values.get(self.column)
        known = {fold(own)} if isinstance(own, str) else set()
        for number in rng.permutation(len(self.templates)).tolist():
            template = self.templates[number]
            caption = template.fill(values)
            if caption is not None and fold(caption) not in known:
                made.setdefault(fold(caption), Made(self.column, caption, f"caption: {template.text}"))
            if len(made) == self.count:
                break
        return list(made.values())
