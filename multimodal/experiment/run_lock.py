"""The lock of a run folder, which the first process of a training holds for all of them."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from lightning.fabric.utilities.rank_zero import _get_rank
from lightning.pytorch.utilities import rank_zero_only

from multimodal.core.files import check_folder
from multimodal.core.folder_lock import write_lock


def run_lock(run: str | Path) -> AbstractContextManager[bool]:
    """Be the only training that writes a run folder, see ``write_lock``; other processes of one training do nothing.

    Args:
        run: the run's folder.

    Raises:
        UsageError: it is a file.

    Examples:
        >>> with run_lock("run") as held:
        ...     held
        True
    """
    check_folder(run)
    return write_lock(run) if _is_first_process() else nullcontext(False)


def _is_first_process() -> bool:
    """Whether this is rank zero; on another node, Lightning learns its rank only when the trainer starts."""
    node = os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", "0"))
    known = rank_zero_only.rank  # pyright: ignore[reportFunctionMemberAccess] (0 until the trainer starts)
    return known == 0 and not _get_rank() and node == "0"
