"""Check of a checkpoint before training continues from it."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError

import torch

from multimodal.core.digests import DamagedFile, check_checkpoint

REMEDY = "Name the run's other checkpoint, or remove the file and start again."


def check_readable(path: Path) -> None:
    """Check that a checkpoint is whole, before anything is built for it; torch does not notice changed weights.

    Args:
        path: the checkpoint; its weights are mapped, not read into memory.

    Raises:
        DamagedFile: it is damaged.

    Examples:
        >>> torch.save({"step": 7}, "last.ckpt")
        >>> check_readable(Path("last.ckpt"))
    """
    check_checkpoint(path, REMEDY)
    try:
        torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except UnpicklingError:  # whole, but of classes that only its reader may allow
        return
    except Exception as error:  # torch's readers raise many types
        raise DamagedFile(f"{path} is damaged: it cannot be read. {REMEDY}") from error
