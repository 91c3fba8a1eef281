"""The parser of the plain commands, and the types of their options."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from multimodal.core.errors import UsageError, did_you_mean
from multimodal.core.files import check_folder, no_such_index, no_such_model, no_such_table

TABLE_FILES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".tar", ".yaml", ".yml", ".gz")
MAX_FILES = 1000  # of a folder, whose names are compared with one that does not exist
TRUSTED_MODULES: list[str] = []  # what --trust_module named, which a command gives to processes that it starts


class CommandParser(argparse.ArgumentParser):
    """Raises errors, and says early which folders and files are not there.

    Examples:
        >>> p = CommandParser()
        >>> action = p.add_argument("run", type=model)
        >>> p.check_paths(p.parse_args(["nowhere"]))
        Traceback (most recent call last):
        ...
        multimodal.core.errors.MultimodalError: nowhere does not exist; give a run folder or an exported model folder.
    """

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see --help)")

    def check_paths(self, options: argparse.Namespace) -> None:
        """Raise an error for a model, an index or a table that is not there, before libraries are imported for seconds.

        Args:
            options: what was parsed.

        Raises:
            MultimodalError: a folder does not exist.
            UsageError: a table's file does not exist.
        """
        for action in self._actions:
            given = getattr(options, action.dest, None)
            for path in given if isinstance(given, list) else [given]:
                if not isinstance(path, str) or os.path.exists(path):
                    continue
                if action.type is model:
                    raise no_such_model(Path(path))
                if action.type is index_folder:
                    raise no_such_index(Path(path))
                if action.type is table and path.endswith(TABLE_FILES) and not any(sign in path for sign in "*?[{:"):
                    near = did_you_mean(path, [str(file) for file in _tables_next_to(Path(path))])
                    raise no_such_table(path, near)


def _tables_next_to(path: Path) -> list[Path]:
    try:
        files = islice(path.parent.iterdir(), MAX_FILES)
        return sorted(file for file in files if file.name.endswith(TABLE_FILES))
    except OSError:  # the folder does not exist, or cannot be read
        return []


def folder(text: str) -> Path:
    """The type of an option that names a folder to write to."""
    try:
        check_folder(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error  # the parser adds the name of the option
    return Path(text)


def model(text: str) -> str:
    """The type of an option that names a run or a model, see ``CommandParser.check_paths``."""
    return text


def index_folder(text: str) -> str:
    """The type of an option that names an index."""
    return text


def table(text: str) -> str:
    """The type of an option that names a table."""
    return text


def port(text: str) -> int:
    """The type of an option that is a port."""
    if not text.isascii() or not text.isdigit() or len(text) > 5 or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give a number from 0 (a free one) to 65535")
    return int(text)


def fraction(text: str) -> float:
    """The type of an option that is a fraction in [0, 1]."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a fraction between 0 and 1")
    return number


def whole_number(wanted: str, most: int) -> Callable[[str], int]:
    """Return the type of an option that takes a whole number from 1.

    Args:
        wanted: what the option takes, for the error: "a number of processes".
        most: the largest number.
    """

    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > len(str(most)) or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        return int(text)

    return parse


def yaml_settings(text: str, example: str) -> dict[str, Any]:
    """Parse the settings that an option gives as YAML; the error shows ``example``."""
    import yaml

    try:
        settings = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(settings, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not a mapping of settings; write it as '{example}'")
    return settings


def parser(command: str, description: str) -> CommandParser:
    """A parser for one of the plain commands."""
    return CommandParser(
        prog=f"multimodal {command}",
        description=description,
        epilog="--debug shows the traceback of an error. --trust_module NAME imports the module of an encoder of your own.",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
