"""The parser of the plain commands, and the types of their options."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from multimodal.core.errors import UsageError
from multimodal.core.files import check_folder


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
