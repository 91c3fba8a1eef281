"""What a worker needs to know. It is pickled for a process that is started, and imports little."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multimodal.serve.limits import Limits


@dataclass(frozen=True)
class WorkerSettings:
    """Settings of a worker.

    Attributes:
        run: folder of the run or model.
        index: folder of the index.
        limits: what a request may cost; ``max_waiting`` is that of all workers together.
        workers: number of workers.
        token: that changes of the index need. None: it cannot be changed.
        feedback: the file to which judgements of hits are appended. None: there is none.
        learn: whether judgements change the ranking.
        hosts: names under which requests may come. None: any.
        trust_modules: modules with encoders of other packages.
        recorded: whether searches are recorded, see ``SentQueries``.
        logged: whether they are logged.

    Examples:
        >>> WorkerSettings(Path("run"), Path("index"), Limits(), workers=2).learn
        False
    """

    run: Path
    index: Path
    limits: Limits
    workers: int
    token: str | None = None
    feedback: Path | None = None
    learn: bool = False
    hosts: list[str] | None = None
    trust_modules: tuple[str, ...] = ()
    recorded: bool = False
    logged: bool = False


@dataclass(frozen=True)
class Shared:
    """What the processes of a server share.

    Attributes:
        folder: for the socket and the metrics, which no other user can enter.
        changes: the number of changes of the index, in memory of all processes.
        counts: of each worker, the requests that it answers now, in memory of all processes.

    Examples:
        >>> Shared(Path("folder"), changes=None, counts=[0, 0]).socket
        PosixPath('folder/index')
    """

    folder: Path
    changes: Any
    counts: Any

    @property
    def socket(self) -> Path:
        """The socket of the ``IndexHost``."""
        return self.folder / "index"

    @property
    def metrics(self) -> Path:
        """The folder of what the workers have counted."""
        return self.folder / "metrics"
