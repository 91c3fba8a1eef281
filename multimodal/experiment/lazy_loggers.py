"""Lightning's loggers, which write nothing before the first value is logged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger


class _AtFirstUse:
    """Stands for a logger's writer, which creates its files as soon as it is made; Lightning asks for it at setup."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def __getattr__(self, name: str) -> Any:
        return getattr(self._make(), name)


class _Lazy:
    """Puts the stand-in before a logger's writer; it comes first among the base classes."""

    @property
    def experiment(self) -> Any:
        """What stands for the writer."""
        return _AtFirstUse(lambda: super(_Lazy, self).experiment)  # pyright: ignore[reportAttributeAccessIssue]


class LazyCSVLogger(_Lazy, CSVLogger):  # pyright: ignore[reportIncompatibleMethodOverride]
    """A CSV logger without a folder until something is logged.

    Examples:
        >>> from pathlib import Path
        >>> logger = LazyCSVLogger("runs/pairs", name="logs")
        >>> _ = logger.experiment
        >>> Path("runs/pairs").exists()
        False
    """


class LazyTensorBoardLogger(_Lazy, TensorBoardLogger):  # pyright: ignore[reportIncompatibleMethodOverride]
    """A TensorBoard logger without a folder until something is logged.

    Examples:
        >>> from pathlib import Path
        >>> logger = LazyTensorBoardLogger("runs/pairs", name="logs")
        >>> _ = logger.experiment
        >>> Path("runs/pairs").exists()
        False
    """
