"""``prepare`` for a table given by its name, from Python and from the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from multimodal.core.errors import check_names
from multimodal.core.progress import progress
from multimodal.prepare.outcome import Outcome
from multimodal.prepare.pipeline import prepare
from multimodal.prepare.settings import Settings
from multimodal.prepare.source import open_source


def prepare_table(
    table: str | Path,
    out: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    files: str | Path | None = None,
    **settings: Any,
) -> Outcome:
    """Clean a table, remove duplicates, split it without leakage and write it as shards with a report.

    Args:
        table: a file, pattern, folder or address; see ``open_table``.
        out: the folder to write; the output of an earlier call is replaced.
        options: settings of the table's reader.
        files: a folder, in addition to the table's own, whose files the cells may name.
        **settings: fields of ``prepare.settings.Settings`` (``columns``, ``group``, ``shares``, ``near``, ``encoders``, ...).

    Returns:
        Counts of the rows, and warnings.

    Raises:
        MultimodalError: the table has no rows, too many rows cannot be used, or the table changed between the two passes.
        UsageError: a setting is out of range or names a column that the table does not have.
    """
    check_names("prepare_table", settings, (field.name for field in fields(Settings)))
    chosen = Settings(**settings)
    source = open_source(str(table), options, None if files is None else Path(files))
    return prepare(source, chosen, Path(out), progress)
