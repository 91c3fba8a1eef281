"""Errors of damaged checkpoints in one line, without torch's advice to load them as pickles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb

from multimodal.core.errors import MultimodalError, shown
from multimodal.core.system_errors import system_fault
from multimodal.training.checkpoint_io import other_checkpoint

READING = "load_checkpoint"  # the function in which Lightning reads the file


@contextmanager
def explain_checkpoint_errors(path: str | Path | None) -> Iterator[None]:
    """Turn whatever reading a checkpoint raises in the block into an error that names the file and what to do.

    Args:
        path: the checkpoint; None: none is read.

    Raises:
        MultimodalError: the file is damaged, or cannot be read.
    """
    try:
        yield
    except MultimodalError:
        raise
    except Exception as error:  # damaged bytes make torch and pickle raise anything
        if path is None or all(frame.f_code.co_name != READING for frame, _ in walk_tb(error.__traceback__)):
            raise
        if (fault := system_fault(error)) is not None:
            raise MultimodalError(f"The checkpoint {path} cannot be read: {fault.advice}.") from error
        raise damaged_checkpoint(path, shown(_first_sentence(error))) from error


def damaged_checkpoint(path: str | Path, reason: str) -> MultimodalError:
    """Return the error of a damaged checkpoint, which names the run's other one.

    Args:
        path: the checkpoint.
        reason: how it shows.
    """
    other = other_checkpoint(Path(path))
    hint = "Train again in a new run folder" if other is None else f"Use {other}, another checkpoint of the run"
    return MultimodalError(f"The checkpoint {path} is damaged or not a checkpoint ({reason}). {hint}.")


def _first_sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0].partition(". ")[0].removesuffix(".")
