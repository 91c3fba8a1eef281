"""A port that several processes listen on, each of which takes one connection at a time."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from multimodal.serve.server import bind
from multimodal.serve.workers.shared_port import SharedPort


def test_many_connections_may_wait_though_each_process_takes_one_at_a_time() -> None:
    with bind("127.0.0.1", 0) as listening, SharedPort.of(listening) as port, ExitStack() as opened:
        port.listen(1)
        for _ in range(50):
            opened.enter_context(socket.create_connection(port.getsockname(), timeout=5))
        for _ in range(50):
            opened.enter_context(port.accept()[0])


def test_a_process_that_closes_its_port_leaves_it_to_the_others() -> None:
    with bind("127.0.0.1", 0) as listening:
        SharedPort.of(listening).close()
        with SharedPort.of(listening) as port, socket.create_connection(port.getsockname(), timeout=5):
            port.accept()[0].close()
