"""Under which names a server is known: a page of another site that leads its own name to this machine gets no answer."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from multimodal.core.errors import shown
from multimodal.serve.errors import RequestError, error_answer

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def known_hosts(listening: str, allowed: Sequence[str] = ()) -> list[str] | None:
    """Return the names under which requests may come; None: under any.

    A server that others can reach has names that it does not know; there, names are checked only if some are given.

    Args:
        listening: the address that the server listens on.
        allowed: further names, such as that of a proxy.

    Examples:
        >>> known_hosts("127.0.0.1", ["search.example.org"])
        ['localhost', '127.0.0.1', '[::1]', 'search.example.org']
        >>> known_hosts("0.0.0.0") is None
        True
    """
    if not allowed and not _is_loopback(listening):
        return None
    own = f"[{listening}]" if ":" in listening else listening
    return list(dict.fromkeys([*LOOPBACK, own.lower(), *(name.lower() for name in allowed)]))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class HostCheck:
    """Refuses requests under other names (DNS rebinding).

    Args:
        app: what answers the others.
        hosts: the names, in lower case.

    Examples:
        >>> HostCheck(lambda *_: None, ["localhost"]).knows("localhost:8000")
        True
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app, self._hosts = app, frozenset(hosts)

    def knows(self, host: str) -> bool:
        """Return whether a request may come under a name.

        Args:
            host: the name, with or without a port.
        """
        name, colon, port = host.rpartition(":")
        return (name if colon and port.isdigit() else host).lower().rstrip(".") in self._hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = Headers(scope=scope).get("host", "") if scope["type"] == "http" else None
        if host is not None and not self.knows(host):
            error = RequestError(
                421, f"This server is not known as {shown(host)!r}; to allow it, start it with --allow_host NAME."
            )
            await error_answer(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)
