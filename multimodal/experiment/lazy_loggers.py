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


class LazyCSVLogger(CSVLogger):
    """A CSV logger without a folder until something is logged.

    Examples:
        >>> from pathlib import Path
        >>> logger = LazyCSVLogger("runs/pairs", name="logs")
        >>> _ = logger.experiment
        >>> Path("runs/pairs").exists()
        False
    """

    @property
    def experiment(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What stands for the writer."""
        return _AtFirstUse(lambda: super(LazyCSVLogger, self).experiment)


class LazyTensorBoardLogger(TensorBoardLogger):
    """A TensorBoard logger without a folder until something is logged.

    Examples:
        >>> from pathlib import Path
        >>> logger = LazyTensorBoardLogger("runs/pairs", name="logs")
        >>> _ = logger.experiment
        >>> Path("runs/pairs").exists()
        False
    """

    @property
    def experiment(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What stands for the writer."""
        return _AtFirstUse(lambda: super(LazyTensorBoardLogger, self).experiment)
