"""Check of a checkpoint before training continues from it."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError

import torch

from multimodal.core.digests import DamagedFile, check_checkpoint
from multimodal.experiment.checkpoint_errors import damaged_checkpoint


def check_readable(path: Path) -> None:
    """Check that a checkpoint is whole, before anything is built for it; torch does not notice changed weights.

    Args:
        path: the checkpoint; its weights are mapped, not read into memory.

    Raises:
        MultimodalError: it is damaged.

    Examples:
        >>> torch.save({"step": 7}, "last.ckpt")
        >>> check_readable(Path("last.ckpt"))
    """
    try:
        check_checkpoint(path)
        torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except UnpicklingError:  # whole, but of classes that only its reader may allow
        return
    except DamagedFile as error:
        raise damaged_checkpoint(path, str(error).partition(" is damaged: ")[2].rstrip(".")) from error
    except Exception as error:  # torch's readers raise many types
        raise damaged_checkpoint(path, f"it cannot be read, {type(error).__name__}") from error
