"""What a request may cost: its size, its time, and how many are let in at once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from multimodal.serve.errors import RequestError, error_answer

ALWAYS_ANSWERED = ("/", "/health", "/metrics", "/openapi.json")  # also by a server that is full
RETRY_AFTER = "1"  # seconds


class Counts(Protocol):
    """Numbers, perhaps in memory that processes share."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> int: ...

    def __setitem__(self, place: int, number: int, /) -> None: ...


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Args:
        max_body: bytes of a request's body, at least 1.
        max_waiting: requests that are worked on or wait at once; a further one is answered by 429.
        timeout: seconds after which a request is answered by 504.
        max_batch: requests whose values are encoded together.
        batch_window: seconds for which a batch waits for further requests while several clients are active.
        max_values: values of one request.
        max_hits: hits of one search.

    Examples:
        >>> Limits(max_waiting=64).max_body
        16777216
    """

    max_body: int = 16 * 2**20
    max_waiting: int = 256
    timeout: float = 30.0
    max_batch: int = 64
    batch_window: float = 0.003
    max_values: int = 2048
    max_hits: int = 1000


class Gate:
    """Lets a request in if there is room, and ends it if it is too large or takes too long.

    Args:
        limits: the limits.
        counts: of each worker of the server, the requests that are let in and not answered yet.
        place: of this worker among them.

    Examples:
        >>> Gate(Limits()).admitted
        0
    """

    def __init__(self, limits: Limits, counts: Counts | None = None, place: int = 0) -> None:
        self._limits = limits
        self._counts, self._place = [0] if counts is None else counts, place

    @property
    def admitted(self) -> int:
        """The requests that are let in and not answered yet, by all workers."""
        return sum(self._counts[worker] for worker in range(len(self._counts)))

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """Return an application behind the gate."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or scope["path"] in ALWAYS_ANSWERED:
                await app(scope, receive, send)
                return
            if (error := self._refusal(scope)) is not None:
                await error_answer(error)(scope, receive, send)
                return
            self._counts[self._place] += 1
            try:
                await self._answer_in_time(app, scope, receive, send)
            finally:
                self._counts[self._place] -= 1

        return guarded

    def _refusal(self, scope: Scope) -> RequestError | None:
        """Return why a request is not let in; None: it is."""
        headers = dict(scope["headers"])
        if headers.get(b"content-encoding", b"identity") != b"identity":
            return RequestError(415, "Send the body without Content-Encoding; compressed ones are not unpacked.")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit():
            return RequestError(400, "Content-Length is not a whole number.")
        if len(length) > 18 or int(length) > self._limits.max_body:
            return self._too_large()
        if (admitted := self.admitted) >= self._limits.max_waiting:
            message = f"{admitted:,} requests are waiting, as many as this server takes; try again later."
            return RequestError(429, message, {"Retry-After": RETRY_AFTER})
        return None

    def _too_large(self) -> RequestError:
        return RequestError(413, f"The request is larger than the {self._limits.max_body:,} bytes allowed here.")

    async def _answer_in_time(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        received, started = 0, False

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limits.max_body:
                raise self._too_large()
            return message

        async def send_noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            async with asyncio.timeout(self._limits.timeout):
                await app(scope, receive_bounded, send_noted)
        except TimeoutError:
            if started:
                raise
            end = "was given up"
            if scope["path"] == "/items" and scope["method"] != "GET":
                end = "is not waited for; what it asks for may still be done"
            error = RequestError(504, f"The request took more than {self._limits.timeout:g} s, and {end}.")
            await error_answer(error)(scope, receive, send)
