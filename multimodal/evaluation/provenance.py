"""What a report is of: data, model, packages and machine, and what the evaluation took."""

from __future__ import annotations

import platform
import sys
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import torch

PACKAGES = ("multimodal", "torch", "lightning", "torch-geometric", "numpy", "scikit-learn")


@dataclass(frozen=True)
class Cost:
    """What an evaluation took.

    Attributes:
        seconds: from its start to the end of the measures.
        peak_bytes: the most memory that the process has had so far; None: the system does not say.
        peak_gpu_bytes: the most memory of the GPU that torch has had so far; None: there is none.

    Examples:
        >>> Cost.since(time.monotonic()).seconds < 1
        True
    """

    seconds: float
    peak_bytes: int | None = None
    peak_gpu_bytes: int | None = None

    @classmethod
    def since(cls, start: float) -> Cost:
        """Measure the cost since a time of ``time.monotonic``."""
        gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
        return cls(time.monotonic() - start, _peak_bytes(), gpu)


def _peak_bytes() -> int | None:
    try:
        import resource
    except ImportError:  # not a Unix
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that the results depend on; those not installed are left out.

    Examples:
        >>> list(versions())[:2]
        ['Python', 'multimodal']
    """
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """Return the processor's architecture, or the GPU's name, and the system."""
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    return f"{gpu}{platform.machine()}, {torch.get_num_threads()} threads, {platform.system()}"
