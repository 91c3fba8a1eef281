"""Writing checkpoints so that the previous one is kept until the new one is complete on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.cloud_io import get_filesystem

from multimodal.core.errors import MultimodalError
from multimodal.core.run_folder import BEST, CHECKPOINTS, LAST


class DurableCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint next to its final path, synchronises it to the disk, and renames it.

    Lightning writes to the temporary folder and moves the file; between two file systems that is a copy into the previous
    checkpoint, which a full disk or a killed process leaves truncated. Paths that are not local are left to Lightning.

    Examples:
        >>> io = DurableCheckpointIO()
        >>> io.save_checkpoint({"step": 7}, "checkpoints/last.ckpt")
        >>> io.load_checkpoint("checkpoints/last.ckpt", weights_only=True)
        {'step': 7}
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: what Lightning saves.
            path: the file to replace.
            storage_options: None for local files, as in Lightning's class.
        """
        if storage_options is not None or "file" not in _protocols(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.with_name(f".{target.name}.new")  # of a killed process: it is written again
        try:
            with new.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, target)
        except BaseException as error:
            new.unlink(missing_ok=True)
            if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
                raise error.__context__ from error  # torch hides why a file could not be written
            raise
        _synchronise_folder(target.parent)


def checkpoint_to_resume(run: Path) -> str | None:
    """Return the path of a run's last checkpoint; None: the run has no checkpoint, so that it begins.

    Raises:
        MultimodalError: only another checkpoint is there; the message names it.
    """
    last = run / CHECKPOINTS / LAST
    if last.is_file():
        return str(last)
    if (other := other_checkpoint(last)) is not None:
        raise MultimodalError(f"{last} is missing. Resume from {other} instead: --ckpt_path {other}.")
    return None


def other_checkpoint(path: Path) -> Path | None:
    """Return the run's other checkpoint, for an error about this one; None: there is none."""
    other = path.with_name(BEST if path.name == LAST else LAST)
    return other if other.is_file() else None


def _protocols(path: Any) -> tuple[str, ...]:
    protocol = get_filesystem(path).protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def _synchronise_folder(folder: Path) -> None:
    """Make a rename durable, where the system can open folders."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
