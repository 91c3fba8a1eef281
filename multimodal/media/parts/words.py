"""The words of a text."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

from multimodal.core.parts import Changes, Parts, nothing_left
from multimodal.media.shading import Shading, tip

# Japanese, Chinese, Thai and others do not separate words by spaces: each of their characters is a part.
_UNSPACED = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


def word_spans(text: str) -> list[tuple[int, int]]:
    """Return where each word of a text begins and ends; in scripts without spaces, each character is one.

    Examples:
        >>> word_spans("a red cup")
        [(0, 1), (2, 5), (6, 9)]
    """
    return [match.span() for match in WORD.finditer(text)]


def without_span(text: str, start: int, end: int) -> str:
    """Return a text without the characters from ``start`` to before ``end``, and without the space that they leave.

    Args:
        text: the text.
        start: the first character.
        end: the first character after them.

    Examples:
        >>> without_span("a red cup", 2, 5)
        'a cup'
    """
    before, after = text[:start], text[end:]
    if before[-1:].isspace() or not before:
        after = after[1:] if after[:1].isspace() else after
    return (before + after).rstrip() if not after.strip() else before + after


def word_parts(text: str, read: Callable[[str], Any]) -> Parts:
    """Take a text apart into its words.

    Args:
        text: the text, which has a word.
        read: from a text to its item, such as the processor itself.

    Examples:
        >>> parts = word_parts("a red cup", str.upper)
        >>> parts.names, parts.without(1)
        (['a', 'red', 'cup'], 'A CUP')
    """
    spans = word_spans(text)
    names = [text[start:end] for start, end in spans]

    def without(number: int) -> Any:
        if len(spans) == 1:
            raise nothing_left(f"{names[0]!r}")
        return read(without_span(text, *spans[number]))

    def draw(changes: Changes) -> str:
        shading, pieces, last = Shading.of(changes), [], 0
        for (start, end), name, change in zip(spans, names, changes, strict=True):
            pieces.append(html.escape(text[last:start]))
            style = f"background: {shading.rgba(change)}; border-radius: 3px; padding: 1px 2px;"
            pieces.append(f'<span title="{tip(name, change)}" style="{style}">{html.escape(name)}</span>')
            last = end
        pieces.append(html.escape(text[last:]))
        return f'<p style="font-size: 1.15em; line-height: 1.8; overflow-wrap: anywhere;">{"".join(pieces)}</p>'

    return Parts(names, without, ["word"] * len(names), draw)
