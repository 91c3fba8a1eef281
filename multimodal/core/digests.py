"""Digests of files, kept in the manifest next to them and compared when the files are read.

1. A manifest is a JSON document. Its key ``files`` holds the size and SHA-256 of the other files of the folder, its key
   ``digest`` the SHA-256 of the rest of the document.
2. Embeddings, which are written a part at a time, and predictions have a list in the format of the program ``sha256sum``.
3. Copies in the cache have ``digests.json``, with digests by block, so that large ones can be checked in part.
4. Folders of earlier versions have none of these, and are read unchecked.

SHA-256 takes about 0.6 seconds per GB on one core; the size is compared first.
"""

from __future__ import annotations

import json
import os
import random
import zipfile
from collections.abc import Iterable, Mapping
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from multimodal.core.errors import MultimodalError
from multimodal.core.manifests import COPY_DIGESTS, PREPARED

DIGEST, FILES = "digest", "files"
SUMS = "multimodal.sha256"  # of embeddings and predictions; not SHA256SUMS, which may be a user's
BLOCK_BYTES = 16 << 20  # of a file that is checked by block
BLOCKS_CHECKED = 64  # of a file that has more; 1 GiB, or 0.6 seconds
OTHER_CONTENTS = "its contents are not those that were written"


class DamagedFile(MultimodalError):
    """The contents of a file are not those that were written.

    Examples:
        >>> raise DamagedFile("vectors.npy is damaged.")
        Traceback (most recent call last):
            ...
        multimodal.core.digests.DamagedFile: vectors.npy is damaged.
    """


def describe_files(folder: Path, names: Iterable[str], block_bytes: int | None = None) -> dict[str, dict[str, Any]]:
    """Return the size and digest of some files, for ``check_file``.

    Args:
        folder: the folder of the files.
        names: their paths below it.
        block_bytes: compute a digest for each block of this size, so that a part of a large file can be checked. None: one
            digest of the whole file.
    """
    entries: dict[str, dict[str, Any]] = {}
    for name in names:
        path = folder / name
        if block_bytes is None:
            entries[name] = {"bytes": path.stat().st_size, "sha256": digest_of_file(path)}
            continue
        blocks = []
        with path.open("rb") as file:
            while block := file.read(block_bytes):
                blocks.append(sha256(block).hexdigest())
        entries[name] = {"bytes": path.stat().st_size, "block_bytes": block_bytes, "sha256": blocks}
    return entries


def digest_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's contents as 64 hexadecimal digits.

    Examples:
        >>> _ = Path("cup.txt").write_text("a red cup")
        >>> digest_of_file(Path("cup.txt"))[:8]
        'd33b9a69'
    """
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def check_file(path: Path, entry: Any, remedy: str = "", whole: bool = False) -> None:
    """Compare a file with its entry, which ``describe_files`` returned.

    Args:
        path: the file.
        entry: its entry in a manifest. None: there is none, as in folders of earlier versions; nothing is checked.
        remedy: what the user should do, a sentence.
        whole: compare every block. False: of a file with more than 64 digests of blocks, the first block, the last, and
            others drawn at random.

    Raises:
        DamagedFile: the file is missing, of another size, or of other contents; or the entry is malformed.

    Examples:
        >>> _ = Path("cup.txt").write_text("a red cup")
        >>> entry = describe_files(Path(), ["cup.txt"])["cup.txt"]
        >>> _ = Path("cup.txt").write_text("a rad cup")
        >>> check_file(Path("cup.txt"), entry)
        Traceback (most recent call last):
            ...
        multimodal.core.digests.DamagedFile: cup.txt is damaged: its contents are not those that were written.
    """
    if entry is None:
        return
    reason = None
    try:
        size = path.stat().st_size
        if size != entry.get("bytes", size):
            reason = f"it has {size:,} bytes instead of {entry['bytes']:,}"
        elif not (
            _blocks_match(path, entry, whole) if "block_bytes" in entry else digest_of_file(path) == entry["sha256"]
        ):
            reason = OTHER_CONTENTS
    except FileNotFoundError as error:
        raise _damage(path, "is missing", remedy) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"its entry in the manifest is malformed ({error!r})"
    if reason is not None:
        raise _damage(path, f"is damaged: {reason}", remedy)


def _damage(path: Path, what: str, remedy: str) -> DamagedFile:
    return DamagedFile(" ".join(f"{path} {what}. {remedy}".split()))


def _blocks_match(path: Path, entry: Mapping[str, Any], whole: bool) -> bool:
    expected, size = entry["sha256"], entry["block_bytes"]
    if len(expected) != -(-entry["bytes"] // size):
        raise ValueError("it has another number of blocks")
    numbers = range(len(expected))
    if len(expected) > BLOCKS_CHECKED and not whole:
        inner = random.Random(os.urandom(8)).sample(range(1, len(expected) - 1), BLOCKS_CHECKED - 2)
        numbers = [0, *sorted(inner), len(expected) - 1]
    with path.open("rb") as file:
        for number in numbers:
            file.seek(number * size)
            if sha256(file.read(size)).hexdigest() != expected[number]:
                return False
    return True


def with_digest(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document of JSON values with its digest, for ``check_document``.

    Examples:
        >>> document = with_digest({"format": 1, "count": 200})
        >>> check_document(document, Path("index.json"))
        >>> check_document(document | {"count": 201}, Path("index.json"))
        Traceback (most recent call last):
            ...
        multimodal.core.digests.DamagedFile: index.json is damaged: its contents are not those that were written.
    """
    return {**document, DIGEST: _document_digest(document)}


def check_document(document: Any, path: Path, remedy: str = "") -> None:
    """Compare a document that was read with its digest, if it has one.

    Args:
        document: JSON values, with the digest that ``with_digest`` added.
        path: where it was read.
        remedy: what the user should do, a sentence.

    Raises:
        DamagedFile: it is not what was written.
    """
    if not isinstance(document, dict) or DIGEST not in document:
        return
    others = {name: value for name, value in document.items() if name != DIGEST}
    if document[DIGEST] != _document_digest(others):
        raise _damage(path, f"is damaged: {OTHER_CONTENTS}", remedy)


def _document_digest(document: Mapping[str, Any]) -> str:
    # as it will be read: keys are strings, tuples are lists
    return sha256(json.dumps(json.loads(json.dumps(document)), sort_keys=True).encode()).hexdigest()


def read_sums(folder: Path) -> dict[str, str]:
    """Return the digests of the list in a folder, file -> 64 hexadecimal digits; the last line about a file counts."""
    try:
        text = (folder / SUMS).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {}
    lines = (line.partition("  ") for line in text.splitlines())
    return {name: digest for digest, _, name in lines}


def record_sum(folder: Path, name: str, sums: Mapping[str, str] | None = None) -> None:
    """Add the digest of a file to the list in its folder.

    Args:
        folder: the folder.
        name: the file in it.
        sums: what ``read_sums`` returned; a digest among them is not added again. None: it is added.

    Examples:
        >>> _ = Path("cup.txt").write_text("a red cup")
        >>> record_sum(Path(), "cup.txt")
        >>> read_sums(Path())["cup.txt"] == digest_of_file(Path("cup.txt"))
        True
    """
    digest = digest_of_file(folder / name)
    if (sums or {}).get(name) != digest:
        with (folder / SUMS).open("a", encoding="utf-8") as file:
            file.write(f"{digest}  {name}\n")


def check_recorded(files: Iterable[Path], remedy: str = "") -> None:
    """Compare files with the digests that ``prepare``, ``embed`` or ``predict`` wrote next to them, if one did.

    Args:
        files: the files; those that do not exist are left out.
        remedy: what the user should do, a sentence.

    Raises:
        DamagedFile: a file, or a manifest, is damaged.
    """
    entries: dict[Path, dict[str, Any]] = {}
    for path in files:
        if path.is_file():
            if path.parent not in entries:
                entries[path.parent] = _recorded_entries(path.parent)
            check_file(path, entries[path.parent].get(path.name), remedy)


def _recorded_entries(folder: Path) -> dict[str, Any]:
    entries: dict[str, Any] = {name: {"sha256": digest} for name, digest in read_sums(folder).items()}
    try:
        document = json.loads((folder / PREPARED).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return entries
    if isinstance(document, dict) and DIGEST in document:  # and not a user's file of this name
        check_document(document, folder / PREPARED)
        entries |= document[FILES]
    return entries


def write_copy_digests(folder: Path) -> None:
    """Write the digests of all files of a copy in the cache, by block."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != COPY_DIGESTS)
    document = with_digest({FILES: describe_files(folder, names, BLOCK_BYTES)})
    new = folder / f"{COPY_DIGESTS}.new"
    new.write_text(json.dumps(document), encoding="utf-8")
    os.replace(new, folder / COPY_DIGESTS)


def is_whole_copy(folder: Path, only: str | None = None) -> bool:
    """Return whether the files of a copy in the cache, or one of them, are those that were written.

    A copy without digests, of an earlier version or of a process that was stopped, is not.
    """
    try:
        document = json.loads((folder / COPY_DIGESTS).read_text(encoding="utf-8"))
        check_document(document, folder / COPY_DIGESTS)
        for name, entry in document[FILES].items():
            if only in (None, name):
                check_file(folder / name, entry)
    except (DamagedFile, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
    return True


def append_digest(path: Path) -> None:
    """Append the SHA-256 of a file's contents to it, 32 bytes, which readers of ``.npy`` files ignore."""
    digest = bytes.fromhex(digest_of_file(path))
    with path.open("ab") as file:
        file.write(digest)


def ends_with_digest(path: Path) -> bool:
    """Return whether a file ends with the digest of what is before.

    Examples:
        >>> _ = Path("cup.txt").write_text("a red cup")
        >>> append_digest(Path("cup.txt"))
        >>> ends_with_digest(Path("cup.txt"))
        True
    """
    content = path.read_bytes()
    return sha256(content[:-32]).digest() == content[-32:]


def check_checkpoint(path: Path, remedy: str = "") -> None:
    """Compare the contents of a checkpoint with the CRC-32 that torch stores of each; torch does not when it reads.

    It takes about 0.3 seconds per GB.

    Args:
        path: a file that ``torch.save`` wrote: a zip archive.
        remedy: what the user should do, a sentence.

    Raises:
        DamagedFile: it is empty, truncated, not an archive, or of other contents.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        reason = None if damaged is None else OTHER_CONTENTS
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        reason = f"it cannot be read ({error})"
    if reason is not None:
        raise _damage(path, f"is damaged: {reason}", remedy)
