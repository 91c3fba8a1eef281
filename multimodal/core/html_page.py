"""Self-contained HTML pages: style, escaping, and the pieces that reports are made of. Nothing in them loads a resource."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

COLOURS = """
:root { color-scheme: light dark; --ink: #1c2733; --soft: #566576; --line: #dde4ea; --ground: #f5f7f9; --panel: #fff;
  --bar: #2171b5; --pale: #c6dbef; --heat: #6baed6; --warn: #b45309; --right: #1a7f37; --wrong: #b42318; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e9ef; --soft: #9aa9b8; --line: #323d49; --ground: #12181f;
  --panel: #1a222b; --bar: #6baed6; --pale: #24425e; --heat: #2a6ea8; --warn: #e0963f; --right: #56c271; --wrong: #ff8a7a; } }
"""
STYLE = (
    COLOURS
    + """\
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: var(--ink); background: var(--ground);
  margin: 0; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 26px; margin: 0 0 2px; overflow-wrap: anywhere; } h2 { font-size: 18px; margin: 0 0 10px; }
h3 { font-size: 14px; margin: 16px 0 6px; overflow-wrap: anywhere; }
p { margin: 0 0 10px; } .soft { color: var(--soft); }
section { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 18px 22px;
  margin-top: 18px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin-top: 18px; }
.card { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 12px 16px; }
.card b { display: block; font-size: 24px; font-variant-numeric: tabular-nums; } .card span { color: var(--soft); }
.warn { border-left: 4px solid var(--warn); } .warn li { margin-bottom: 4px; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; } th { text-align: left; color: var(--soft); font-weight: 600; }
th, td { padding: 4px 12px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 8px 32px; }
svg { display: block; width: 100%; height: auto; }
svg text { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: var(--ink); }
svg .bar { fill: var(--bar); } svg .axis { stroke: var(--soft); }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 12px; margin-bottom: 12px; }
.row { border: 1px solid var(--line); border-radius: 6px; padding: 8px 12px; overflow-wrap: anywhere; min-width: 0; }
.row img { max-width: 112px; max-height: 112px; display: block; margin: 4px 0; border: 1px solid var(--line); }
.row small { color: var(--soft); }
@media (max-width: 560px) { .charts, .pair { grid-template-columns: 1fr; } main { padding: 20px 12px 48px; }
  section { padding: 14px; } }
"""
)


def page(title: str, body: str, style: str = "", script: str = "") -> str:
    """Return a whole page. Its content security policy allows no resource but data in the page, and no other script.

    Args:
        title: the title of the window.
        body: the content, as HTML.
        style: further rules, after ``STYLE``.
        script: one script, which runs after the page is there; "": none.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"'sha256-{digest}'" if script else "'none'"
    policy = f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src {allowed}"
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{text(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<style>{STYLE}{style}</style>\n</head>\n<body>\n<main>\n{body}</main>\n"
        f"{f'<script>{script}</script>' if script else ''}</body>\n</html>\n"
    )


def text(value: object) -> str:
    r"""Escape any text for HTML; unprintable characters become replacement characters.

    Examples:
        >>> text("<b> & \x00")
        '&lt;b&gt; &amp; �'
    """
    return escape(printable(value))


def printable(value: object) -> str:
    r"""Replace unprintable characters, such as those that reverse the text around them, by replacement characters.

    Examples:
        >>> printable("a\u202e cup\x00")
        'a� cup�'
    """
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))


def as_json(data: Any) -> str:
    """Return JSON that can be in a ``script`` element.

    Args:
        data: the value.

    Examples:
        >>> "</" in as_json({"name": "</script>"})
        False
    """
    return (
        json.dumps(data, separators=(",", ":"), ensure_ascii=True)
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("&", "\\u0026")
    )


def section(title: str, *content: str, kind: str = "", name: str = "") -> str:
    """Return a section under a heading.

    Args:
        title: the heading.
        content: HTML.
        kind: a class of the style, such as "warn".
        name: what links to it name; "": nothing links to it.
    """
    anchor = f' id="{text(name)}"' if name else ""
    return f'<section class="{kind}"{anchor}>\n<h2>{text(title)}</h2>\n{"".join(content)}</section>\n'


def paragraph(words: str) -> str:
    """Return a paragraph of text, which is escaped."""
    return f"<p>{text(words)}</p>\n"


def cards(entries: Iterable[tuple[str, str]]) -> str:
    """Return large figures in boxes, each with the words below it.

    Args:
        entries: figure and words of each.
    """
    inner = "".join(
        f'<div class="card"><b>{text(figure)}</b><span>{text(words)}</span></div>\n' for figure, words in entries
    )
    return f'<div class="cards">\n{inner}</div>\n'


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; numbers are right-aligned, whole ones have thousands separators, and fractions are per cent.

    Args:
        head: names of the columns.
        rows: the cells of each row.
    """
    lines = []
    numeric = set()
    for row in rows:
        cells = []
        for position, cell in enumerate(row):
            if isinstance(cell, int | float):
                numeric.add(position)
                cells.append(
                    f'<td class="n">{cell:,}</td>' if isinstance(cell, int) else f'<td class="n">{cell:.1%}</td>'
                )
            else:
                cells.append(f"<td>{text(cell)}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>\n")
    titles = "".join(
        f'<th class="n">{text(t)}</th>' if p in numeric else f"<th>{text(t)}</th>" for p, t in enumerate(head)
    )
    return f"<table>\n<tr>{titles}</tr>\n{''.join(lines)}</table>\n"


def bars(entries: Sequence[tuple[str, int]]) -> str:
    """Return a bar chart with a horizontal bar for each label, as SVG.

    Args:
        entries: label and length of each bar.
    """
    tallest = max((count for _, count in entries), default=0) or 1
    lines = []
    for position, (label, count) in enumerate(entries):
        y, width = 22 * position, max(1.0 if count else 0.0, 300 * count / tallest)
        short = label if len(label) <= 24 else label[:23] + "…"
        lines.append(
            f'<text x="172" y="{y + 15}" text-anchor="end">{text(short)}<title>{text(label)}</title></text>'
            f'<rect class="bar" x="180" y="{y + 3}" width="{width:.1f}" height="16" rx="2"/>'
            f'<text x="{186 + width:.1f}" y="{y + 15}">{count:,}</text>\n'
        )
    return f'<svg viewBox="0 0 560 {22 * len(entries) + 4}" role="img">\n{"".join(lines)}</svg>\n'
