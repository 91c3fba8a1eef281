"""The page as one file: colours, style and script are put into it, and it may load nothing but answers of its own server."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from multimodal.core.html_page import COLOURS

SCRIPTS = ("query.js", "drawing.js", "hits.js", "map.js", "main.js")


@cache
def build_page() -> tuple[str, str]:
    """Return the page, and its content security policy for a header.

    Examples:
        >>> page, policy = build_page()
        >>> page.startswith("<!doctype html>"), "script-src 'sha256-" in policy
        (True, True)
    """
    folder = files("multimodal.serve.page")
    content, style, *scripts = (
        (folder / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", *SCRIPTS)
    )
    script = '"use strict";\n' + "\n".join(scripts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; connect-src 'self'; img-src 'self' data:; media-src 'self'; style-src 'unsafe-inline';"
        f" script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>Search</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<style>{COLOURS}{style}</style>\n</head>\n<body>\n{content}<script>{script}</script>\n</body>\n</html>\n"
    )
    return page, policy
