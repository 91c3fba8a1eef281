"""Values of modalities as options: ``--text "a red cup"``, ``--image cup.png``, ``--MODALITY VALUE``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from multimodal.core.errors import MultimodalError, Unreadable, UsageError

JSON_EXAMPLE = '{"category": "mugs"}'

Values = list[tuple[str, str]]  # modality and value of each option


@contextmanager
def asking_for_json(named: str = "") -> Iterator[None]:
    """Say in the error about a value in the block that should not be a text that it may be given as JSON.

    Args:
        named: the option and its value; "": the error names them.
    """
    try:
        yield
    except MultimodalError as error:
        cause = error.__context__  # encode shows one traceback only
        if not isinstance(cause, Unreadable) or cause.reason != "wrong type":  # what is typed here is a text
            raise
        what = f"{named}: {cause}" if named else error
        raise MultimodalError(f"{what} Give JSON, like '{JSON_EXAMPLE}'.") from error


def check_modalities(run: str, names: list[str], own_options: Sequence[str]) -> None:
    """Check, if several options may be values, that each is a modality of the model: another is misspelled.

    Args:
        run: folder of the run.
        names: the names of the options.
        own_options: the command's own options.
    """
    from pathlib import Path

    from multimodal.core.errors import suggest
    from multimodal.core.model_folder import read_description

    known: list[str] = names  # where the model cannot be read, as the error about the number of queries comes first
    with suppress(MultimodalError):
        known = list(read_description(Path(run))["encoders"])
    for name in names:
        if name not in known:
            raise UsageError(
                f"there is no option --{name}.{suggest(name, [*known, *(o.removeprefix('--') for o in own_options)])}"
            )


def split_values(arguments: list[str], own_options: Sequence[str]) -> tuple[Values, list[str]]:
    """Return the ``--MODALITY VALUE`` and ``--MODALITY=VALUE`` among the arguments, and the other arguments.

    Args:
        arguments: of the command.
        own_options: the command's own options, written in full.

    Raises:
        UsageError: a value is missing, or an option of the command is abbreviated.
    """
    queries, rest = [], []
    remaining = iter(arguments)
    for argument in remaining:
        name, has_value, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or f"--{name}" in own_options:
            rest.append(argument)
            continue
        in_full = [option for option in own_options if name and option.startswith(argument)]
        if in_full:  # without this, --targ image would be a search for the modality "targ"
            raise UsageError(f"write {argument} in full: {in_full[0]}. A modality of this name takes {argument}=VALUE.")
        queried = value if has_value else next(remaining, None)
        if queried is None or (queried.startswith("--") and not has_value):
            raise UsageError(f"{argument} takes a value; one that begins with -- is written {argument}=VALUE.")
        queries.append((name, queried))
    return queries, rest
