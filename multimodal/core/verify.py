"""Comparison of all files of a folder with their digests."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from multimodal.core.digests import (
    DIGEST,
    FILES,
    DamagedFile,
    check_checkpoint,
    check_document,
    check_file,
    read_sums,
)
from multimodal.core.errors import MultimodalError
from multimodal.core.files import no_such_folder
from multimodal.core.manifests import (
    COPY_DIGESTS,
    EMBEDDINGS,
    EXPORT,
    INDEX,
    ITEMS,
    LAYOUT,
    MODEL,
    PREPARED,
    VECTORS,
    WEIGHTS,
)

CHECKPOINT = ".ckpt"
DOCUMENTS = {  # manifest -> files that it belongs to, also in folders of earlier versions, which have no digests
    MODEL: (WEIGHTS,),
    INDEX: (VECTORS, ITEMS),
    LAYOUT: (),  # of an index's engine, whose own files change with every row and have no digests
    PREPARED: (),
    EXPORT: (),
    EMBEDDINGS: (),
    COPY_DIGESTS: (),
}


@dataclass(frozen=True)
class CheckedFile:
    """A file that was compared with its digest.

    Attributes:
        path: the file.
        damage: what is wrong with it; None: nothing.
        has_digest: whether there is a digest of it; files of earlier versions have none.

    Examples:
        >>> CheckedFile(Path("index/vectors.npy"))
        OK         index/vectors.npy
    """

    path: Path
    damage: str | None = None
    has_digest: bool = True

    def __repr__(self) -> str:
        if self.damage is not None:
            return f"DAMAGED    {self.damage}"
        return f"{'OK' if self.has_digest else 'NO DIGEST':<10} {self.path}"


def verify_files(path: str | Path) -> list[CheckedFile]:
    """Compare the files of a folder, and of the folders in it, with their digests, as ``multimodal verify`` does.

    Args:
        path: a run, a model, an index, embeddings, a prepared table, an export, the cache, a folder of such folders, or a
            checkpoint. Every byte of the files is read.

    Returns:
        The files that have a digest, or belong to one of these but are of an earlier version and have none, in order.

    Raises:
        MultimodalError: there is nothing to verify.

    Examples:
        >>> from multimodal import Embedder, create
        >>> Embedder({"text": create("text", "bag", width=4)}, dim=2).save_pretrained("model")
        >>> verify_files("model")
        [OK         model/embedder.json, OK         model/model.safetensors]
    """
    path = Path(path)
    if not path.exists():
        raise no_such_folder(path, " does not exist; name a run, a model, an index, embeddings or a prepared table.")
    if path.is_dir():
        found = [file for folder in _folders(path) for file in _check_folder(folder)]
    else:
        found = [file for file in _check_folder(path.parent) if file.path == path]
    if not found:
        raise MultimodalError(
            f"{path} holds nothing that has digests: it is not a run, a model, an index, embeddings or a prepared table."
        )
    return found


def _folders(path: Path) -> Iterator[Path]:
    for folder, below, _ in os.walk(path):
        below[:] = sorted(name for name in below if not name.startswith("."))  # unfinished folders begin with a dot
        yield Path(folder)


def _check_folder(folder: Path) -> Iterator[CheckedFile]:
    for name, belonging in DOCUMENTS.items():
        if (folder / name).is_file():
            yield from _check_manifest(folder / name, belonging)
    sums = read_sums(folder)
    for name, digest in sorted(sums.items()):
        yield _check_entry(folder, name, {"sha256": digest})
    if (folder / EMBEDDINGS).is_file():
        others = sorted(path for path in folder.glob("part-*.parquet") if path.name not in sums)
        yield from (CheckedFile(path, has_digest=False) for path in others)
    for path in sorted(folder.glob(f"*{CHECKPOINT}")):
        yield _checked(path, check_checkpoint, path)


def _check_manifest(path: Path, belonging: tuple[str, ...]) -> Iterator[CheckedFile]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        check_document(document, path)
        if not isinstance(document, dict):
            raise ValueError("it is not a mapping")
        entries = dict(document.get(FILES, {}))
    except DamagedFile as error:
        yield CheckedFile(path, str(error))
        return
    except (OSError, ValueError, TypeError, RecursionError) as error:
        yield CheckedFile(path, f"{path} is damaged: it cannot be read ({error}).")
        return
    yield CheckedFile(path, has_digest=DIGEST in document)
    if "engine" in document:  # an index without vectors of its own
        belonging = ()
    for name in sorted({*entries, *belonging}):
        yield _check_entry(path.parent, name, entries.get(name))


def _check_entry(folder: Path, name: str, entry: Any) -> CheckedFile:
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts:
        return CheckedFile(folder, f"{folder} has a manifest that names a file elsewhere: {name!r}.")
    if entry is None:
        damage = None if (folder / name).is_file() else f"{folder / name} is missing."
        return CheckedFile(folder / name, damage, has_digest=False)
    return _checked(folder / name, check_file, folder / name, entry, whole=True)


def _checked(path: Path, check: Any, *arguments: Any, **options: Any) -> CheckedFile:
    try:
        check(*arguments, **options)
    except (DamagedFile, OSError) as error:
        return CheckedFile(path, str(error))
    return CheckedFile(path)
