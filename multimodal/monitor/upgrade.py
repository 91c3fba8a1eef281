"""A new model for the index in a folder: embedded and built next to it, then put in its place in one step.

1. The rows of the index are embedded with the new model into a working folder next to it, ``.INDEX.upgrade``, and a second
   index is built there. The old one is searched and changed meanwhile. Stopped at any moment, the same command continues.
2. Rows that were added to the old index are embedded from the values that are kept with it (see ``search.index_rows``), and
   what was removed is removed. The last of this happens while nobody can change the old index.
3. The two folders change places, in one step where the system can (see ``core.exchange``). A process that has the old index
   open continues to search it, and cannot change it; ``multimodal serve`` notices, and continues with the new one.
4. The former index is kept as ``INDEX.former``. ``rollback_index`` brings it up to date and exchanges the two again.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.exchange import exchange_folders
from multimodal.core.folder_lock import write_lock
from multimodal.core.system_errors import writing
from multimodal.monitor.new_index import (
    NEW,
    NUMBERS,
    STATE,
    bring_up_to_date,
    build_index,
    embed_rows,
    former_folder,
    index_rows,
    layout_of,
    read_state,
    remove_others,
    working_folder,
)
from multimodal.search.engines.address import is_address
from multimodal.search.engines.open import EXACT
from multimodal.search.index import Index
from multimodal.search.index_folder import DESCRIPTION, MODEL, read_index_description
from multimodal.search.index_rows import IndexRows

if TYPE_CHECKING:
    from multimodal.core.embedder import Embedder
    from multimodal.monitor.canary import CanaryResult


@dataclass(frozen=True)
class Upgraded:
    """What an upgrade or a rollback did.

    Attributes:
        index: the folder of the index.
        model: the folder of the model that it belongs to now. None: not known.
        fingerprint: that of the model.
        rows: the number of its rows.
        added: rows that were embedded from the values kept with the index, as they were added after it was built.
        removed: rows that were removed from the old index while the new one was being made.
        seconds: the time that it took.
        locked_seconds: the time for which the index could not be changed.
        former: the folder of the former index.
        already: whether the index was of this model before, so that nothing was done.

    Examples:
        >>> Upgraded("index", "runs/b", "f" * 64, 3138, 2, 0, 60.0, 0.1, "index.former")
        index: 3,138 rows, 2 of them added since it was built; model runs/b. The former index is index.former.
    """

    index: str
    model: str | None
    fingerprint: str
    rows: int
    added: int
    removed: int
    seconds: float
    locked_seconds: float
    former: str
    already: bool = False

    def __repr__(self) -> str:
        if self.already:
            return f"{self.index} is of the model {self.model} already: {self.rows:,} rows."
        added = f", {self.added:,} of them added since it was built" if self.added else ""
        removed = f", {self.removed:,} removed meanwhile" if self.removed else ""
        model = f"model {self.model}" if self.model else f"model of the fingerprint {self.fingerprint[:12]}"
        return f"{self.index}: {self.rows:,} rows{added}{removed}; {model}. The former index is {self.former}."


def upgrade_index(
    index: str | Path,
    run: str | Path,
    table: str | None = None,
    *,
    processes: int | None = None,
    canaries: str | None = None,
    allow: float = 0.0,
) -> Upgraded:
    """Embed the rows of an index with another model, and put the new index in its place, as ``multimodal upgrade`` does.

    The new index has the rows of the old one, no more and no less, the same engine and the same quantization. A second call
    continues an interrupted one; where the index is of this model already, nothing is done.

    Args:
        index: folder of the index. It may be open in a server.
        run: folder of the run or exported model that takes the place of the old one; it has all modalities of the index.
        table: the table with the rows that the index was built from. None: the one that it was built from.
        processes: see ``embed_table``.
        canaries: a table of queries with their expected hits, see ``multimodal.monitor.canary``, that the new index must
            find before it takes the place of the old one. None: no queries.
        allow: fraction of the canaries, in [0, 1], that may fail.

    Raises:
        UsageError: the index is on a server, or the model has not all of its modalities.
        MultimodalError: the index, the model or the table cannot be read, rows of the index are not in the table, canaries
            fail, or another process upgrades the index.
    """
    start = time.perf_counter()
    index, run = Path(index).absolute(), Path(run)
    read_index_description(index)
    work = working_folder(index)
    with _working(work):
        finish_exchange(index)
        description = read_index_description(index)
        from multimodal.core.embedder import Embedder
        from multimodal.core.hardware import fast_device

        embedder = Embedder.from_pretrained(run).to(fast_device())
        _check(index, description, embedder)
        rows = index_rows(index)
        former = str(former_folder(index))
        if embedder.fingerprint == description["fingerprint"]:
            count = len(rows.keys())
            return Upgraded(str(index), str(run), embedder.fingerprint, count, 0, 0, 0.0, 0.0, former, already=True)
        embed_rows(index, description, rows, embedder, table, processes)
        with build_index(index, description, embedder, run) as new:
            added, applied = bring_up_to_date(rows, new, 0)
            if canaries is not None:
                _check_canaries(new, canaries, allow, work)
            more, applied = bring_up_to_date(rows, new, applied)
            locked = time.perf_counter()
            with rows.locked():
                last, _ = bring_up_to_date(rows, new, applied)
                removed = remove_others(rows, new)
                index_rows(work / NEW).set_mark()
                count = len(rows.keys())
                new.close()
                exchange_folders(index, work / NEW)
            locked = time.perf_counter() - locked
        finish_exchange(index)
    seconds = time.perf_counter() - start
    added |= more | last
    return Upgraded(
        str(index), str(run), embedder.fingerprint, count, len(added), removed, seconds, locked, former
    )  # fmt: skip


def rollback_index(index: str | Path, run: str | Path | None = None) -> Upgraded:
    """Put the former index in the place of the present one, which is then the former; a second call goes forward again.

    Rows that were added since the upgrade are embedded with the former model, and removed ones are removed.

    Args:
        index: folder of the index. It may be open in a server.
        run: folder of the former run or model; needed only if rows were added since, and if the former index does not know it.

    Raises:
        MultimodalError: there is no former index, rows were added and the former model is not known, or another process
            upgrades the index, or has the former index open.
    """
    start = time.perf_counter()
    index = Path(index).absolute()
    read_index_description(index)
    work, former = working_folder(index), former_folder(index)
    with _working(work):
        finish_exchange(index)
        if not (former / DESCRIPTION).is_file():
            raise MultimodalError(f"There is no former index {former}: {index} was not upgraded.")
        description, rows = read_index_description(former), IndexRows(index)
        if run is not None:
            description[MODEL] = str(run)
        added: set[str] = set()
        locked = time.perf_counter()
        removed = 0
        with rows.locked():
            if rows.changes_since_mark:
                with _open_former(former, description, bool(rows.added_keys(rows.mark))) as opened:
                    added, _ = bring_up_to_date(rows, opened, rows.mark)
                    removed = remove_others(rows, opened)
            index_rows(former).set_mark()
            count = len(rows.keys())
            exchange_folders(index, former)
        locked = time.perf_counter() - locked
    seconds = time.perf_counter() - start
    return Upgraded(
        str(index), description.get(MODEL), description["fingerprint"], count, len(added), removed, seconds, locked, str(former)
    )  # fmt: skip


@contextmanager
def _working(work: Path) -> Iterator[None]:
    """Be the only one who works in a folder, which is removed if it is empty at the end."""
    try:
        with write_lock(work), writing(work):
            yield
    finally:
        with suppress(OSError):  # it is not empty
            work.rmdir()


def finish_exchange(index: Path) -> None:
    """Move the former index out of the working folder, if a process was killed after the two changed places.

    Args:
        index: folder of the index.
    """
    work, former = working_folder(index), former_folder(index)
    state = read_state(work)
    if state is None or read_index_description(index)["fingerprint"] != state["fingerprint"]:
        return
    if (work / NEW / DESCRIPTION).is_file():
        if former.exists() and not (former / DESCRIPTION).is_file():
            raise MultimodalError(f"{former} is not an index, and would be replaced by the former one; move it away.")
        shutil.rmtree(former, ignore_errors=True)
        os.rename(work / NEW, former)
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    for name in (NUMBERS, STATE):  # the state last
        (work / name).unlink(missing_ok=True)


def _check(index: Path, description: Mapping[str, Any], embedder: Embedder) -> None:
    engine = description.get("engine", EXACT)
    if is_address(engine):
        raise UsageError(
            f"The vectors of {index} are on a server ({engine}): build a new collection with `multimodal embed` and"
            " `multimodal index`, and search that."
        )
    held = layout_of(index, description).modalities if engine != EXACT else _modalities_of_exact(index)
    if missing := [modality for modality in held if modality not in embedder.modalities]:
        raise UsageError(
            f"{index} has vectors of {', '.join(missing)}, and the new model only knows {', '.join(embedder.modalities)}."
        )


def _modalities_of_exact(index: Path) -> list[str]:
    with Index.open(index) as opened:
        return opened.modalities


def _open_former(former: Path, description: Mapping[str, Any], needs_model: bool) -> Index:
    if not needs_model:
        return Index.open(former)
    if description.get(MODEL) is None:
        raise MultimodalError(
            f"Rows were added since the upgrade, and {former} does not know its model: name the former run,"
            " multimodal upgrade INDEX RUN --rollback."
        )
    return Index.open(former, model=description[MODEL])


def _check_canaries(new: Index, canaries: str, allow: float, work: Path) -> CanaryResult:
    from multimodal.monitor.canary import run_canaries

    result = run_canaries(new, canaries)
    failed, count = len(result.failed), len(result.outcomes)
    if failed > allow * count:
        lines = "\n".join(map(str, result.failed))
        raise MultimodalError(
            f"{failed:,} of {count:,} canaries fail in the new index, so the old one is kept:\n{lines}\nThe embeddings stay in"
            f" {work}, so that the same command with --allow need not make them again; delete that folder otherwise."
        )
    return result
