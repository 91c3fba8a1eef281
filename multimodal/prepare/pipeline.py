"""Steps of ``prepare``, from a source to a folder of shards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np

from multimodal.core.digests import FILES, describe_files, with_digest
from multimodal.core.errors import MultimodalError
from multimodal.core.extras import require
from multimodal.core.files import atomic_folder
from multimodal.core.manifests import PREPARED
from multimodal.core.rejects import Reject
from multimodal.prepare.first_pass import SPLIT, FirstPass, Progress, write_reject
from multimodal.prepare.outcome import Outcome, count_outcome
from multimodal.prepare.plan import Plan, make_plan
from multimodal.prepare.report.examples import Examples
from multimodal.prepare.report.html import write_report
from multimodal.prepare.report.statistics import Statistics
from multimodal.prepare.report.warnings import make_warnings
from multimodal.prepare.settings import Settings
from multimodal.prepare.shard_writer import ShardWriter
from multimodal.prepare.source import Row, Source

REJECTS, DUPLICATES, REPORT = "rejects.jsonl", "duplicates.jsonl", "report.html"


@contextmanager
def no_progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Report no progress; the default of ``prepare``."""
    yield lambda rows: None


def prepare(source: Source, settings: Settings, out: Path, progress: Progress = no_progress) -> Outcome:
    """Clean a table, remove duplicates, split the remaining rows without leakage, and write them with a report.

    The folder ``out`` appears only when it is complete. It contains shards, whose column ``split`` names each row's split,
    ``report.html``, ``rejects.jsonl``, ``duplicates.jsonl`` and ``prepare.json``. The same rows and settings give the same
    bytes.

    Args:
        source: the table; it is read twice, and its first rows once more.
        settings: the settings, see ``Settings``.
        out: the folder to write. The output of an earlier run is replaced; any other non-empty folder is an error.
        progress: called with a label and the number of rows (None: unknown) of each pass; returns a context manager whose
            function is called with the number of rows done.

    Returns:
        Counts of the rows, and warnings.

    Raises:
        MultimodalError: the table has no rows, too many rows cannot be used (they are listed in a file next to ``out``), the
            table changed between the two passes, or ``out`` contains something else.
        UsageError: a setting names a missing column, no column contains a modality, or a library of the extra ``prepare``
            is not installed.
    """
    require("prepare", "Preparing a table", "datasketch", "imagehash")
    reading = FirstPass(source, settings)
    with atomic_folder(out, PREPARED) as new:
        with (new / REJECTS).open("w", encoding="utf-8", newline="\n") as rejects:
            reading.read(rejects, progress)
            _raise_if_too_many_rejects(reading, rejects, out)
            plan = make_plan(reading)
            statistics, examples = Statistics(reading.columns), Examples(reading, plan)
            keys: dict[int, str] = {}
            rows_per_split = _second_pass(reading, plan, new, rejects, statistics, examples, keys, progress)
        _write_duplicates(new / DUPLICATES, reading, plan, keys)
        outcome = count_outcome(reading, plan, rows_per_split)
        outcome.warnings.extend(make_warnings(reading, plan, statistics, outcome))
        write_report(new / REPORT, reading, plan, statistics, examples, outcome)
        document = outcome.to_json() | {
            "table": source.name,
            "columns": {c.name: {"kind": c.kind, "modality": c.modality} for c in reading.columns},
            "settings": settings.to_json(),
        }
        document = with_digest(document | {FILES: describe_files(new, sorted(path.name for path in new.iterdir()))})
        (new / PREPARED).write_text(
            json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n"
        )
    return outcome


def _raise_if_too_many_rejects(reading: FirstPass, rejects: TextIO, out: Path) -> None:
    """Raise if there are more rejects than allowed; their file is kept next to ``out``, which is not written."""
    too_many = reading.too_many_rejects()
    if too_many is None:
        return
    rejects.flush()
    path = out.absolute().with_name(f"{out.absolute().name}.{REJECTS}")
    shutil.copyfile(rejects.name, path)
    raise MultimodalError(
        f"{too_many}. All are in {path}; nothing else was written. Fix the table or raise max_rejects."
    )


def _second_pass(
    reading: FirstPass,
    plan: Plan,
    folder: Path,
    rejects: TextIO,
    statistics: Statistics,
    examples: Examples,
    keys: dict[int, str],
    progress: Progress,
) -> dict[str, int]:
    """Read the table again and write the rows that are kept; return the number of rows of each split.

    ``keys`` gets those of the rows that repeat another or are repeated.
    """
    settings = reading.settings
    repeated = ~plan.duplicates.kept
    repeated[plan.duplicates.original[repeated]] = True
    shards = ShardWriter(folder, settings.format, settings.shard_rows, reading.output_columns, reading.stored_types)
    kept = plan.kept
    position = accepted = 0
    try:
        with progress("Writing", len(reading.rejected)) as advance:
            for item in reading.source:
                if position >= len(reading.rejected):
                    raise _table_changed_error(reading)
                if not reading.rejected[position]:
                    if isinstance(item, Reject) or item.number != reading.numbers[accepted]:
                        raise _table_changed_error(reading)
                    clean = reading.clean(item)
                    if isinstance(clean, Reject):
                        raise _table_changed_error(reading)
                    if plan.surplus[accepted]:
                        write_reject(rejects, _balance_reject(reading, item))
                    if kept[accepted]:
                        split = plan.names[plan.split[accepted]]
                        shards.write(split, position, clean | {SPLIT: split})
                        statistics.add(clean)
                    examples.collect(accepted, clean)
                    if repeated[accepted] and settings.key is not None and clean[settings.key] is not None:
                        keys[accepted] = str(clean[settings.key])
                    accepted += 1
                position += 1
                advance(1)
    finally:
        shards.close()
    if position != len(reading.rejected):
        raise _table_changed_error(reading)
    return {name: shards.rows.get(name, 0) for name in plan.names}


def _table_changed_error(reading: FirstPass) -> MultimodalError:
    return MultimodalError(
        f"The table {reading.source.name!r} or its files changed while they were read; run it again."
    )


def _balance_reject(reading: FirstPass, row: Row) -> Reject:
    column = reading.settings.balance
    assert column is not None
    message = f"left out so that every value of {column!r} has as many rows."
    return reading.clean.reject(row, column, row.values[column], "balanced", message)


def _write_duplicates(path: Path, reading: FirstPass, plan: Plan, keys: Mapping[int, str]) -> None:
    """Write a line for each row that repeats another: the numbers of both, their keys if they have any, and whether it is near.

    As ``{"row": 7, "key": "s-8", "repeats": 2, "repeats_key": "s-3", "near": false}``.
    """
    numbers, repeats = reading.numbers, plan.duplicates
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in np.flatnonzero(~repeats.kept).tolist():
            original = int(repeats.original[row])
            line: dict[str, object] = {}
            for name, key_name, place in (("row", "key", row), ("repeats", "repeats_key", original)):
                line[name] = numbers[place]
                if place in keys:
                    line[key_name] = keys[place]
            line["near"] = bool(repeats.near[row])
            file.write(json.dumps(line) + "\n")
