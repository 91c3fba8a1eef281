"""The keys of ``data:`` as options of the commands that take a table."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from multimodal.cli.options import fraction, table, yaml_settings
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.yaml_file import read_yaml

COLUMNS = "--columns."


HELP: dict[str, dict[str, Any]] = {
    "key": {"metavar": "COLUMN", "help": "the column that names a row (default: the row number)"},
    "group": {"metavar": "COLUMN", "help": "the column whose equal values belong together"},
    "split": {"metavar": "COLUMN", "help": "the column that names each row's split"},
    "max_rejects": {
        "metavar": "FRACTION",
        "type": fraction,
        "help": "the fraction of the rows that may be unreadable (default: 0.01)",
    },
    "options": {
        "metavar": "YAML",
        "type": partial(yaml_settings, example="{delimiter: ;}"),
        "help": "settings of the table's reader, as '{delimiter: ;}'",
    },
}


def add_split_options(
    parser: argparse.ArgumentParser,
    *,
    of: str = "the run's",
    split: str = "the split to evaluate (default: the data's test split)",
    pool: str | None = "search in this split, or in all rows (default: the split itself)",
) -> None:
    """Give a parser the options of a command that measures a run: ``--data``, ``--split`` and ``--pool``.

    Args:
        parser: the command's.
        of: whose data are the default.
        split: what is said of ``--split``.
        pool: what is said of ``--pool``. None: the command does not search.
    """
    parser.add_argument(
        "--data", type=table, help=f"a configuration with a `data:` section, or a table's name (default: {of} data)"
    )
    parser.add_argument("--split", help=split)
    if pool is not None:
        parser.add_argument("--pool", metavar="SPLIT", help=pool)


def add_data_options(parser: argparse.ArgumentParser, keys: Sequence[str] = tuple(HELP)) -> None:
    """Give a parser ``--columns.MODALITY COLUMN`` and options for ``keys`` of ``data:``."""
    options = parser.add_argument_group("the table")
    options.add_argument(
        COLUMNS + "MODALITY", metavar="COLUMN", help="the column of a modality; given again, further columns of it"
    )
    for key in keys:
        options.add_argument(f"--{key}", default=None, **HELP[key])


def parse_with_data(
    parser: argparse.ArgumentParser, arguments: Sequence[str], keys: Sequence[str] = tuple(HELP)
) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Parse a command's arguments.

    Args:
        parser: with the options of ``add_data_options``.
        arguments: the command line, without the command.
        keys: the keys of ``data:`` that the command takes as options.

    Returns:
        The parsed options, and the keys of ``data:`` that were given; ``columns`` is modality -> column or columns.

    Raises:
        UsageError: an option is unknown, or its value is missing.
    """
    columns, rest = _split_column_options(arguments)
    options = parser.parse_args(rest)
    data: dict[str, Any] = {key: value for key in keys if (value := getattr(options, key)) is not None}
    return options, data | ({"columns": columns} if columns else {})


def data_settings(table: str, given: dict[str, Any]) -> dict[str, Any]:
    """The settings under ``data:``: those of a configuration file (``TABLE`` ends in .yaml), changed by the options given.

    Raises:
        MultimodalError: the configuration cannot be read.
    """
    if Path(table).suffix not in (".yaml", ".yml"):
        return {"table": table} | given
    config = read_yaml(Path(table))
    data = config.get("data") if isinstance(config, dict) else None
    if not isinstance(data, dict) or not isinstance(data.get("table"), str):
        raise MultimodalError(f"The configuration {table} has no `data:` section that names a `table:`.")
    return data | given


def _split_column_options(arguments: Sequence[str]) -> tuple[dict[str, str | list[str]], list[str]]:
    """The ``--columns.MODALITY COLUMN`` and ``--columns.MODALITY=COLUMN`` among the arguments, and the other arguments."""
    found: dict[str, list[str]] = {}
    rest: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        name, has_value, value = argument.partition("=")
        if not name.startswith(COLUMNS):
            rest.append(argument)
            continue
        modality = name.removeprefix(COLUMNS)
        column = value if has_value else next(remaining, None)
        if not modality.isidentifier():
            raise UsageError(f"{name}: {modality!r} is not the name of a modality; write --columns.image picture.")
        if not column or (column.startswith("--") and not has_value):
            raise UsageError(f"{name} takes the name of a column, as in --columns.image picture.")
        found.setdefault(modality, []).append(column)
    return {m: several[0] if len(several) == 1 else several for m, several in found.items()}, rest
