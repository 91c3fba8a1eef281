"""An explanation as HTML: a piece for notebooks, and a page of its own, without scripts, in light and dark."""

from __future__ import annotations

import html
from collections.abc import Sequence

from multimodal.media.shading import AGAINST, FOR

LEGEND = (
    f'<p><span style="color: {FOR};">&#9632;</span> speaks for the match: without it the score is lower. '
    f'<span style="color: {AGAINST};">&#9632;</span> speaks against it. The stronger the colour, the more it is worth;'
    " each value, and the strokes of an outline, have a scale of their own.</p>"
)
STYLE = """
:root { color-scheme: light dark; --ink: #1c2733; --soft: #55636f; --line: #dde4ea; --page: #f5f7f9; --card: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e9ee; --soft: #9dabb8; --line: #333d47; --page: #14191e; --card: #1d242b; }
}
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: var(--ink); background: var(--page); margin: 0; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 56px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 17px; margin: 0 0 12px; overflow-wrap: anywhere; }
p { margin: 0 0 10px; } main > p { color: var(--soft); }
.values { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 18px; margin-top: 18px;
  align-items: start; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 16px 20px; min-width: 0; }
svg { display: block; margin: 0 auto 12px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; color: var(--soft); font-weight: 600; }
th, td { padding: 3px 10px 3px 0; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th:last-child, td:last-child { text-align: right; font-variant-numeric: tabular-nums; padding-right: 0; white-space: nowrap; }
"""


def page(title: str, score: float, sections: Sequence[str]) -> str:
    """Return an explanation as an HTML page of one file.

    Args:
        title: the title of the page.
        score: the score that is explained.
        sections: the explanation of each value, as HTML.
    """
    values = "".join(f"<section>{section}</section>\n" for section in sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>Score {score:.3f}</h1>\n"
        "<p>Each part of the query and of the match was left out alone; its worth is the score minus the score without"
        " it.</p>\n"
        f'{LEGEND}\n<div class="values">\n{values}</div>\n</main>\n</body>\n</html>\n'
    )


def piece(score: float, sections: Sequence[str]) -> str:
    """Return an explanation as a piece of HTML, for a notebook; see ``page``."""
    return f"<div><p>score {score:.3f}</p>{LEGEND}{''.join(f'<div>{section}</div>' for section in sections)}</div>"
