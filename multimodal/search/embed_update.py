"""The states of a folder of embeddings when its table has changed: the old state is readable until the new one is whole.

1. The new state is written to the folder ``.next`` in the folder, a complete folder of embeddings. A stopped update continues
   there. If the table changes again meanwhile, what was embedded for ``.next`` is kept in ``.partial``, to take vectors from.
2. When it is whole, ``.next`` is renamed to ``.whole``. From now on only files are moved.
3. The old manifest is removed: until the end there are no embeddings that could be read, rather than a mixture of two states.
4. The files of ``.whole`` replace the old ones, its manifest the last. A process killed meanwhile leaves ``.whole``, and the
   next one continues.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from multimodal.core.digests import SUMS, digest_of_file, read_sums, with_digest
from multimodal.core.errors import MultimodalError
from multimodal.core.folder_lock import LOCK_FILE
from multimodal.search.embedding_folder import MANIFEST, WHOLE, Manifest, read_manifest

NEXT, PARTIAL = ".next", ".partial"
REJECTS = "rejects.jsonl"


def open_state(out: Path, manifest: Manifest) -> tuple[Path, list[Path]]:
    """Prepare a folder for the embeddings that a manifest describes.

    Args:
        out: the folder, whose lock is held.
        manifest: what is to be written.

    Returns:
        The folder to write to, which has this manifest, and the whole parts of earlier states.

    Raises:
        MultimodalError: the folder contains other work, or something else.
    """
    finish_replacement(out)
    if not (out / MANIFEST).is_file():
        unfinished = out / f"{MANIFEST}.new"  # which a killed process may have left
        if any(path.name not in (LOCK_FILE, unfinished.name) for path in out.iterdir()):
            raise MultimodalError(f"{out} is not empty and holds no embeddings; choose another folder.")
        _write_manifest(manifest, out)
        return out, []
    current = read_manifest(out)
    new = out / NEXT
    if current == manifest:
        for folder in (new, out / PARTIAL):  # of an update that is no longer wanted
            shutil.rmtree(folder, ignore_errors=True)
        return out, []
    if not is_of_changed_table(current, manifest):
        raise MultimodalError(
            f"{out} holds embeddings of another model, table or split, or made with other settings; remove it or choose"
            " another folder."
        )
    if new.is_dir() and not _has_manifest(new, manifest):
        shutil.rmtree(out / PARTIAL, ignore_errors=True)
        os.rename(new, out / PARTIAL)
    if not new.is_dir():
        new.mkdir()
        _write_manifest(manifest, new)
    return new, [part for folder in (out, out / PARTIAL) for part in _whole_parts(folder)]


def is_of_changed_table(current: Manifest, manifest: Manifest) -> bool:
    """Return whether two manifests are of one model and table, before and after a change of the table or its metadata."""
    same_contents = current.table == manifest.table
    if same_contents and (current.rows, current.rows_digest) != (manifest.rows, manifest.rows_digest):
        return False  # another split
    if same_contents and current.metadata == manifest.metadata:
        return False  # other parts
    changed = {name: getattr(manifest, name) for name in ("table", "rows", "rows_digest", "metadata", "part_rows")}
    return replace(current, **changed) == manifest


def replace_state(out: Path) -> None:
    """Replace the state of a folder by the one in ``.next``, which is whole."""
    (out / NEXT / REJECTS).touch()  # so that there is one to replace the old
    os.rename(out / NEXT, out / WHOLE)
    finish_replacement(out)


def finish_replacement(out: Path) -> None:
    """Move the files of a new state that is whole into the folder, if there is one; it may be moved in part already."""
    whole = out / WHOLE
    if not whole.is_dir():
        return
    if (whole / MANIFEST).is_file():
        names = {*read_manifest(whole).parts, SUMS, REJECTS}
        (out / MANIFEST).unlink(missing_ok=True)
        for path in out.glob("part-*.parquet"):
            if path.name not in names:
                path.unlink()
        for name in sorted(names):
            if (whole / name).is_file():
                os.replace(whole / name, out / name)
        if (out / REJECTS).is_file() and not (out / REJECTS).stat().st_size:
            (out / REJECTS).unlink()
        os.replace(whole / MANIFEST, out / MANIFEST)
    for folder in (whole, out / PARTIAL):
        shutil.rmtree(folder, ignore_errors=True)


def _has_manifest(folder: Path, manifest: Manifest) -> bool:
    try:
        return read_manifest(folder) == manifest
    except MultimodalError:
        return False


def _whole_parts(folder: Path) -> Sequence[Path]:
    """Return the parts in a folder whose contents have their recorded digest."""
    digests = read_sums(folder)
    parts = sorted(folder.glob("part-*.parquet"))
    return [part for part in parts if part.name in digests and digest_of_file(part) == digests[part.name]]


def _write_manifest(manifest: Manifest, out: Path) -> None:
    new = out / f"{MANIFEST}.new"
    new.write_text(json.dumps(with_digest(asdict(manifest)), indent=1), encoding="utf-8")
    os.replace(new, out / MANIFEST)
