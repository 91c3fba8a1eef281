"""Addresses of files in fsspec's notation: paths, URLs, and chains (``zip://pairs.csv::https://host/pairs.zip``)."""

from __future__ import annotations

from typing import Any

from multimodal.core.errors import UsageError


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
    """Return the address of a file in a folder: ``zip://shop::a.zip``, ``red.png`` -> ``zip://shop/red.png::a.zip``."""
    path, separator, archives = folder.partition("::")
    return f"{path}{'' if path.endswith('/') else '/'}{name}{separator}{archives}"
