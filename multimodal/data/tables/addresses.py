"""Addresses of files in fsspec's notation: paths, URLs, and chains (``zip://pairs.csv::https://host/pairs.zip``)."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from multimodal.core.errors import UsageError

BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")
WEB = ("http://", "https://")
MAX_EXPANDED = 100_000


def expand_braces(pattern: str) -> list[str]:
    """Return the addresses that a pattern with braces names, in order, as a shell does; without braces, itself.

    ``{a,b}`` stands for each of the texts, ``{008..010}`` for each of the numbers, with zeros in front if they have them.

    Raises:
        UsageError: there are more than ``MAX_EXPANDED``.

    Examples:
        >>> expand_braces("shop-{08..10}.tar")
        ['shop-08.tar', 'shop-09.tar', 'shop-10.tar']
    """
    expanded = [""]
    end = 0
    for found in BRACES.finditer(pattern):
        first, last, texts = found.groups()
        count = texts.count(",") + 1 if first is None else abs(int(last) - int(first)) + 1
        if len(expanded) * count > MAX_EXPANDED:
            raise UsageError(f"{pattern!r} names more than {MAX_EXPANDED:,} files; name fewer.")
        parts = texts.split(",") if first is None else _numbers(first, last)
        expanded = [f"{before}{pattern[end : found.start()]}{part}" for before in expanded for part in parts]
        end = found.end()
    return [before + pattern[end:] for before in expanded]


def _numbers(first: str, last: str) -> list[str]:
    """Return the numbers of a range, as wide as the widest if one begins with a zero."""
    has_zeros = any(len(text) > 1 and text.startswith("0") for text in (first, last))
    width = max(len(first), len(last)) if has_zeros else 1
    a, b = int(first), int(last)
    return [f"{n:0{width}}" for n in (range(a, b + 1) if a <= b else range(a, b - 1, -1))]


def is_remote(address: str) -> bool:
    """Return whether an address is more than a path: a URL or a chain."""
    return "://" in address or "::" in address


def archive_of(address: str) -> str:
    """Return the last address of a chain, such as the archive; an address that is not a chain is returned unchanged."""
    return address.rpartition("::")[2]


def replace_path(address: str, path: str, system: Any) -> str:
    """Return the address of another file of the same file system.

    Args:
        address: a path, URL or chain.
        path: path of the other file, in the file system's notation; it replaces the path of ``address``.
        system: the file system that fsspec opens ``address`` with.

    Raises:
        UsageError: the chain starts with a file system that has no paths, such as ``simplecache::``.

    Examples:
        >>> replace_path("zip://shop/a.csv::shop.zip", "shop/b.csv", None)
        'zip://shop/b.csv::shop.zip'
    """
    if not is_remote(address):
        return path
    first, separator, archives = address.partition("::")
    if not separator:
        return system.unstrip_protocol(path)
    protocol, scheme_end, _ = first.partition("://")
    if not scheme_end:
        raise UsageError(f"{address!r}: leave out '{first}::'; tables are cached without it.")
    return f"{protocol}://{path}::{archives}"


def join(folder: str, name: str) -> str:
    """Return the address of a file in a folder.

    On web servers, special characters of the name are escaped; what comes after a ``?`` is the server's.

    Examples:
        >>> join("zip://shop::a.zip", "red.png"), join("https://host/shop", "100% red.png")
        ('zip://shop/red.png::a.zip', 'https://host/shop/100%25%20red.png')
    """
    path, separator, archives = folder.partition("::")
    if path.startswith(WEB):
        name, question, query = name.partition("?")
        name = quote(name) + question + query
    return f"{path}{'' if path.endswith('/') else '/'}{name}{separator}{archives}"
