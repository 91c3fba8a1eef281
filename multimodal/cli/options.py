"""The parser of the plain commands, and the types of their options."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from multimodal.core.errors import UsageError
from multimodal.core.files import check_folder

TRUSTED_MODULES: list[str] = []  # what --trust_module named, which a command gives to processes that it starts


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see --help)")


def folder(text: str) -> Path:
    """The type of an option that names a folder to write to."""
    try:
        check_folder(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error  # the parser adds the name of the option
    return Path(text)


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


def parser(command: str, description: str) -> argparse.ArgumentParser:
    """A parser for one of the plain commands."""
    return _Parser(
        prog=f"multimodal {command}",
        description=description,
        epilog="--debug shows the traceback of an error. --trust_module NAME imports the module of an encoder of your own.",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
