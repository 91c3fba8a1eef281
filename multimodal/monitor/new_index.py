"""The new index of an upgrade: its working folder, its rows embedded with the new model, and what was added meanwhile."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from multimodal.core.digests import check_document, with_digest
from multimodal.core.errors import MultimodalError, UsageError, shown
from multimodal.core.json_file import read_json
from multimodal.core.progress import progress
from multimodal.data.samples import Samples
from multimodal.data.tables.open import IN_MEMORY, open_table
from multimodal.monitor.query_map import stored_map
from multimodal.search.engines.layout import Layout
from multimodal.search.engines.open import EXACT
from multimodal.search.index import Index
from multimodal.search.index_folder import DESCRIPTION, ENGINE
from multimodal.search.index_rows import IndexRows

if TYPE_CHECKING:
    from multimodal.core.embedder import Embedder

STATE = "upgrade.json"  # in the working folder: to which model, of which table
NUMBERS = "rows.npy"  # in the working folder: the numbers of the table's rows that are embedded
EMBEDDINGS, NEW, MAP = "embeddings", "index", "query_map"  # folders in the working folder
SHOWN = 3  # keys in an error


def former_folder(index: Path) -> Path:
    """Return the folder of the former index, next to the index.

    Examples:
        >>> former_folder(Path("shop/index")).as_posix()
        'shop/index.former'
    """
    return index.with_name(f"{index.name}.former")


def working_folder(index: Path) -> Path:
    """Return the folder in which the new index is made, next to the index.

    Examples:
        >>> working_folder(Path("shop/index")).as_posix()
        'shop/.index.upgrade'
    """
    return index.with_name(f".{index.name}.upgrade")


def index_rows(index: Path) -> IndexRows:
    """Return which rows an index has; of an index that an earlier version built, from its engine.

    Args:
        index: folder of the index.

    Raises:
        MultimodalError: it cannot be opened, or another process has it open.
    """
    if (rows := IndexRows.of(index)) is not None:
        return rows
    with Index.open(index) as opened:
        return IndexRows.create(index, opened.items["key"].to_pylist())


def read_state(work: Path) -> dict[str, Any] | None:
    """Return to which model and of which table a working folder is; None: nothing was begun.

    Args:
        work: the working folder.

    Raises:
        MultimodalError: it is damaged.
    """
    if not (work / STATE).is_file():
        return None
    try:
        state = read_json(work / STATE)
        check_document(state, work / STATE, f"Remove {work}.")
        return {name: state[name] for name in ("fingerprint", "data", "table")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MultimodalError(f"{work / STATE} is damaged; remove {work}.") from error


def embed_rows(
    index: Path,
    description: Mapping[str, Any],
    rows: IndexRows,
    embedder: Embedder,
    table: str | None,
    processes: int | None,
) -> None:
    """Embed the rows that an index was built from with the new model, into the working folder.

    Args:
        index: folder of the index.
        description: what is in its ``index.json``.
        rows: which rows it has.
        embedder: the new model.
        table: see ``upgrade_index``.
        processes: see ``embed_table``.

    Raises:
        MultimodalError: the table or one of the rows cannot be read, or the table does not have all of them.
    """
    from multimodal.search.embed import embed_samples, usual_precision
    from multimodal.search.embed_processes import default_processes

    work = working_folder(index)
    samples = table_of(index, description, table)
    state = {"fingerprint": embedder.fingerprint, "data": samples.settings, "table": samples.fingerprint}
    earlier = read_state(work)
    if earlier != state:
        shutil.rmtree(work / NEW, ignore_errors=True)
    if earlier is None or (earlier["fingerprint"], earlier["data"]) != (state["fingerprint"], state["data"]):
        shutil.rmtree(
            work / EMBEDDINGS, ignore_errors=True
        )  # of an upgrade to another model, which is no longer wanted
    mapped = stored_map(work / MAP)
    if mapped is not None and mapped["new"] != embedder.fingerprint:
        shutil.rmtree(work / MAP)
    if earlier != state or not (work / NUMBERS).is_file():
        numbers = numbers_of(samples, rows.keys(built_from=True), index)
        with (work / NUMBERS).open("wb") as file:
            np.save(file, numbers)
        _write_state(work, state)
    if (work / NEW / DESCRIPTION).is_file():
        return
    numbers = np.load(work / NUMBERS, allow_pickle=False)
    metadata = description.get("metadata")
    with progress("Embedding", len(numbers)) as advance:
        embed_samples(
            embedder,
            samples,
            numbers,
            work / EMBEDDINGS,
            advance,
            max_rejects=0.0,
            processes=processes or default_processes(),
            precision=usual_precision(work / EMBEDDINGS),
            metadata=metadata,
        )


def _write_state(work: Path, state: Mapping[str, Any]) -> None:
    new = work / f"{STATE}.new"
    new.write_text(json.dumps(with_digest(dict(state)), indent=1), encoding="utf-8")
    os.replace(new, work / STATE)


def table_of(index: Path, description: Mapping[str, Any], table: str | None) -> Samples:
    """Open the table that an index was built from, or another one of the same columns.

    Args:
        index: folder of the index.
        description: what is in its ``index.json``.
        table: the other table. None: that of the index.

    Raises:
        UsageError: the index does not know its table, and none is given.
    """
    settings = dict(description.get("data") or {})
    if table is not None:
        settings["table"] = str(table)
    if settings.get("table", IN_MEMORY) == IN_MEMORY or not settings.get("columns"):
        raise UsageError(
            f"{index} does not know the table that it was built from: name it, multimodal upgrade INDEX RUN TABLE."
        )
    split = settings.get("split")
    if table is not None and isinstance(split, str):  # all rows of the index are embedded, whatever their split is
        opened = open_table(settings["table"], settings.get("options"))
        settings["split"] = split if split in opened.columns else None
    return Samples.of(**settings)


def numbers_of(samples: Samples, keys: set[str], index: Path) -> np.ndarray:
    """Return the numbers of the rows that have some keys, ascending ``(r,)`` int64.

    Args:
        samples: the table.
        keys: the keys.
        index: folder of the index, for the error.

    Raises:
        MultimodalError: the table does not have all of them.
    """
    found = [row for row in samples.rows("all").tolist() if samples.key_of(row) in keys]
    if missing := keys - {samples.key_of(row) for row in found}:
        raise MultimodalError(
            f"{len(missing):,} of the {len(keys):,} rows that {index} was built from are not in the table {samples.name!r}:"
            f" {_some(missing)}. Name a table that has them, or remove them from the index."
        )
    if not found:
        raise MultimodalError(f"{index} has no rows of the table {samples.name!r}, so there is nothing to embed.")
    return np.array(found, dtype=np.int64)


def _some(keys: set[str]) -> str:
    named = ", ".join(shown(key) for key in sorted(keys)[:SHOWN])
    return named + (", ..." if len(keys) > SHOWN else "")


def layout_of(index: Path, description: Mapping[str, Any]) -> Layout:
    """Return what the engine of an index stores.

    Args:
        index: folder of the index.
        description: what is in its ``index.json``.
    """
    return Layout(1) if "engine" not in description else Layout.read(index / ENGINE)


def build_index(index: Path, description: Mapping[str, Any], embedder: Embedder, run: Path) -> Index:
    """Build the new index in the working folder, unless it is there already, and open it.

    Args:
        index: folder of the old index.
        description: what is in its ``index.json``.
        embedder: the new model.
        run: its folder.
    """
    work = working_folder(index)
    if not (work / NEW / DESCRIPTION).is_file():
        layout = layout_of(index, description)
        Index.build(
            work / EMBEDDINGS,
            work / NEW,
            engine=description.get("engine", EXACT),
            quantization=layout.quantization,
            dim=layout.searched_dim,
            reduction=layout.reduction,
            model=run,
        ).close()
    return Index.open(work / NEW, model=embedder)


def bring_up_to_date(rows: IndexRows, new: Index, since: int) -> tuple[set[str], int]:
    """Add to an index the rows that were added to another one.

    Args:
        rows: those of the other index.
        new: the index, which knows its model.
        since: the number of the last change that it has.

    Returns:
        The keys of the rows that were added, and the number of the last change that it has now.

    Raises:
        MultimodalError: the values of a row are not known, or cannot be read.
    """
    last, done = rows.last_change, set[str]()
    for added in rows.added(since):
        if added.in_memory:
            if lost := {key for key, row in zip(added.keys, added.rows, strict=True) if row is None}:
                raise MultimodalError(
                    f"The values of {len(lost):,} rows that were added to {rows.file.parent} were objects of a program, which"
                    f" are not kept: {_some(lost)}. Remove them, and add them again after the upgrade."
                )
            samples = Samples.of(**{**added.settings, "table": added.rows})
        else:
            samples = Samples.of(**added.settings)
        numbers = numbers_of(samples, set(added.keys), rows.file.parent)
        new.upsert_rows(samples, numbers, 0.0)
        done |= set(added.keys)
    return done, last


def remove_others(rows: IndexRows, new: Index) -> int:
    """Remove from an index what another one does not have, and check that nothing is missing.

    Args:
        rows: the rows of the other index.
        new: the index.

    Returns:
        The number of rows that were removed.

    Raises:
        MultimodalError: it has not all of them.
    """
    assert new.folder is not None
    there = index_rows(new.folder).keys()
    wanted = rows.keys()
    if missing := wanted - there:
        raise MultimodalError(
            f"{len(missing):,} rows of {rows.file.parent} are missing in the new index: {_some(missing)}. The present one is"
            " kept."
        )
    others = sorted(there - wanted)
    if others:
        new.remove(others)
    return len(others)
