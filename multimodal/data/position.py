"""Positions in the training data: an epoch, a batch, and what the order of the rows depends on."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any


def resumed_position(
    saved: Mapping[str, Any], order: Mapping[str, int], batches: int | None, verbose: bool = True
) -> tuple[dict[str, int], bool]:
    """Return the position at which training continues, and whether it is the one that was saved.

    A place within an epoch holds only if the order of the rows is the same. Otherwise training continues with the next
    epoch, which is printed.

    Args:
        saved: the state of a loader of training batches: epoch, batch and order. Version 0.1 saved no order.
        order: what the order of the rows depends on now.
        batches: in an epoch; None: unknown.
        verbose: whether to print.

    Examples:
        >>> resumed_position({"epoch": 1, "batch": 4, "order": {"rows": 80}}, {"rows": 80}, batches=10)
        ({'epoch': 1, 'batch': 4}, True)
        >>> resumed_position({"epoch": 1, "batch": 4, "order": {"rows": 80}}, {"rows": 60}, batches=7)
        ({'epoch': 2, 'batch': 0}, False)
    """
    epoch, batch, saved_order = saved["epoch"], saved["batch"], saved.get("order", order)
    if batch == 0 or (saved_order == order and (batches is None or batch < batches)):
        return {"epoch": epoch, "batch": batch}, True
    if verbose:
        print(
            f"Note: the checkpoint was saved within an epoch of other batches ({_changes(saved_order, order)}). The rest of"
            " that epoch is left out; training continues with the next one.",
            file=sys.stderr,
        )
    return {"epoch": epoch + 1, "batch": 0}, False


def _changes(saved: Mapping[str, int], order: Mapping[str, int]) -> str:
    """Return what differs between two orders in words: "batch_size 8, now 32"."""
    changed = [n for n in {**saved, **order} if saved.get(n) != order.get(n) and not n.endswith("_checksum")]
    listed = [f"{name} {saved.get(name, 'unknown')}, now {order.get(name, 'unknown')}" for name in changed]
    return ", ".join(listed) or "other rows"


def repeated_batches(limit: int | float, batches: int) -> int | None:
    """Return the number of batches that Lightning's ``overfit_batches`` repeats in every epoch; None: it is not set.

    Args:
        limit: the setting: a number of batches, or a fraction of them.
        batches: in an epoch.

    Examples:
        >>> repeated_batches(3, 10), repeated_batches(0.5, 10), repeated_batches(0.0, 10)
        (3, 5, None)
    """
    if not limit:
        return None
    return max(min(limit, batches), 1) if isinstance(limit, int) else max(int(batches * limit), 1)
