"""Addresses of files as fsspec writes them: paths, URLs, and chains (``zip://pairs.csv::https://host/pairs.zip``)."""

from __future__ import annotations

from typing import Any

from multimodal.core.errors import UsageError


def is_remote(address: str) -> bool:
    """Whether it is more than a path."""
    return "://" in address or "::" in address


def archive_of(address: str) -> str:
    """The file that a chain begins from, as the archive; of what is no chain, all."""
    return address.rpartition("::")[2]


def replace_path(address: str, path: str, system: Any) -> str:
    """The address of another file of the same file system.

    Args:
        address: a path, URL or chain.
        path: as the file system writes it, in place of that of ``address``.
        system: the file system that fsspec opens ``address`` with.

    Raises:
        UsageError: a chain begins with a file system that has no paths of its own, as ``simplecache::`` does.
    """
    if not is_remote(address):
        return path
    first, sign, rest = address.partition("::")
    if not sign:
        return system.unstrip_protocol(path)
    protocol, separator, _ = first.partition("://")
    if not separator:
        raise UsageError(f"{address!r}: leave out '{first}::'; tables are kept in a cache without it.")
    return f"{protocol}://{path}::{rest}"


def join(folder: str, name: str) -> str:
    """The address of a file in a folder: ``zip://shop::a.zip`` and ``red.png`` make ``zip://shop/red.png::a.zip``."""
    first, sign, rest = folder.partition("::")
    return f"{first}{'' if first.endswith('/') else '/'}{name}{sign}{rest}"
