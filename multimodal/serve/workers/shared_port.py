"""The port that workers share: each takes one connection at a time, so that none takes all that come at once."""

from __future__ import annotations

import socket

BACKLOG = 2048  # connections that wait for a worker


class SharedPort(socket.socket):
    """A listening socket of several processes.

    An event loop calls ``listen`` with the number of connections that it takes in a row, which would also be the number that
    may wait; here that number is not changed.

    Examples:
        >>> with socket.create_server(("127.0.0.1", 0)) as listening, SharedPort.of(listening) as port:
        ...     port.listen(1)
        ...     port.fileno() == listening.fileno()
        False
    """

    @classmethod
    def of(cls, listening: socket.socket) -> SharedPort:
        """Return a shared port that listens as another socket does."""
        return cls(listening.family, listening.type, listening.proto, listening.dup().detach())

    def listen(self, backlog: int = BACKLOG, /) -> None:
        """Listen; as many connections as before may wait."""
        super().listen(BACKLOG)
