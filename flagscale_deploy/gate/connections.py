"""Clients' connections: how many, and how long each may take."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from traceback import extract_tb
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from flagscale_deploy.gate.errors import RETRY_AFTER, body

HEAD_SECONDS = 30.0
"""How long the head of a request may take from its first byte; less where the idle time is less."""
LINGER_SECONDS = 5.0
"""How long the rest of a body is read after its request is refused, so that the client sees why."""
HEAD_SLACK = 1 << 20
"""Bytes beyond a head's limit that may come before the head is understood."""
WRITE_BUFFER = 32 << 10
log = logging.getLogger("gate")
_FULL = body(503, "Too many connections", "unavailable")


class Connection(web.RequestHandler):
    """A connection of a client. It is closed when a deadline passes: a head, a body or a write that takes too long."""

    def __init__(self, door: Door, *, loop: asyncio.AbstractEventLoop, **settings: Any) -> None:
        super().__init__(door, loop=loop, **settings)
        self._door = door
        self._idle, self._in_body = True, False
        self._head = 0
        self._began = time.monotonic()
        self.named = False
        """Whether its last request had a valid key."""
        self.deadline: float | None = self._began + min(HEAD_SECONDS, door.idle_seconds)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve, or refuse where too many connections have requests."""
        super().connection_made(transport)
        cast(asyncio.Transport, transport).set_write_buffer_limits(high=WRITE_BUFFER)
        if len(self._door.connections) > self._door.most and not self._door.make_room():
            self._door.refused(503)
            cast(asyncio.Transport, transport).write(_raw(503, _FULL))
            self.force_close()
            return
        self._door.idle[self.named][self] = None

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection."""
        self._door.idle[self.named].pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes of heads, also while a request is answered, then let aiohttp read it."""
        if data and not self._in_body:
            if self._idle and not self._head:
                self.deadline = time.monotonic() + min(HEAD_SECONDS, self._door.idle_seconds)
            self._head += len(data)
            if self._head > self._door.header_bytes + HEAD_SLACK:
                self.abort()
                return
        super().data_received(data)

    def begin(self) -> None:
        """Note that a request has come, whose body is read next."""
        self._door.idle[self.named].pop(self, None)
        self._idle, self._in_body = False, True
        self._began = time.monotonic()
        self.deadline = self._began + self._door.idle_seconds

    def extend(self, seconds: float) -> None:
        """Give the body these seconds on top of the idle time."""
        self.deadline = self._began + self._door.idle_seconds + seconds

    def wait_for_server(self) -> None:
        """Take the deadline away: it is not the client who is slow. Its next request may come meanwhile."""
        if self._in_body:
            self._in_body, self._head = False, 0
        self.deadline = None

    def write(self) -> None:
        """Give the client the idle time to take what is written next."""
        self.deadline = time.monotonic() + self._door.idle_seconds

    def end(self, whole: bool) -> None:
        """Wait for the next request; where the body was not read to its end, only for the rest of it."""
        if self._door.draining:
            self.close()
        if self.transport is not None:
            self._door.idle[self.named][self] = None
        self._idle, self._in_body, self._head = True, not whole, 0
        self.deadline = time.monotonic() + (self._door.idle_seconds if whole else LINGER_SECONDS)

    def drain(self) -> None:
        """Close if no request is being answered."""
        if self._idle:
            self.close()

    def abort(self) -> None:
        """Close at once, with what is not yet written lost: the client sees that the reply is cut."""
        if self.transport is not None:
            self.transport.abort()

    def log_exception(self, *args: Any, **settings: Any) -> None:
        """Log where the gate itself failed, without the error's own words: they may quote what a client has sent."""
        error = settings.get("exc_info")
        if isinstance(error, BaseException) and not isinstance(error, HttpProcessingError):
            places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in extract_tb(error.__traceback__)]
            log.error("%s: %s in %s", args[0] if args else "", type(error).__name__, " > ".join(places))

    def handle_error(
        self, _request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, _text: str | None = None
    ) -> web.StreamResponse:
        """Return the reply to a request that cannot be read, or on which the gate itself failed."""
        status = 431 if isinstance(exc, LineTooLong) else status
        if status >= 500:
            self.log_exception("Error handling request", exc_info=exc)
        self._door.refused(status)
        text = {400: "The request is not HTTP/1.1", 431: "A header, or the request line, is too large"}.get(status)
        response = web.Response(
            status=status, body=body(status, text or "The gate failed"), content_type="application/json"
        )
        response.force_close()
        return response


class Door(web.Server):
    """The server that makes a `Connection` of each client's, and closes those that are past their deadline."""

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], **settings: Any) -> None:
        super().__init__(handler, handler_cancellation=True)
        self._settings = settings
        self.most = 1
        self.draining = False
        self.header_bytes = 64 << 10
        self.idle_seconds = 300.0
        self.idle: dict[bool, dict[Connection, None]] = {False: {}, True: {}}
        """Connections without a request, by whether their last one had a valid key; the longest without one first."""
        self.refused: Callable[[int], None] = lambda _status: None

    def __call__(self) -> Connection:
        """Return the protocol of a new connection."""
        return Connection(self, loop=asyncio.get_running_loop(), **self._settings)

    def make_room(self) -> bool:
        """Close the connection longest without a request, of strangers first; return False where all have one."""
        for waiting in self.idle.values():
            if (oldest := next(iter(waiting), None)) is not None:
                del waiting[oldest]
                oldest.abort()
                return True
        return False

    def drain(self) -> None:
        """Close connections without a request now, and the others after their request."""
        self.draining = True
        for connection in self.connections:
            if isinstance(connection, Connection):
                connection.drain()

    async def close_late(self, every: float = 0.5) -> None:
        """Close connections that are past their deadline, for ever."""
        while True:
            await asyncio.sleep(min(every, self.idle_seconds / 4))
            now = time.monotonic()
            for connection in self.connections:
                if isinstance(connection, Connection) and connection.deadline is not None and connection.deadline < now:
                    connection.abort()


def _raw(status: int, content: bytes) -> bytes:
    head = {"Content-Type": "application/json", "Content-Length": str(len(content)), "Connection": "close"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in (head | RETRY_AFTER).items())
    return f"HTTP/1.1 {status} Service Unavailable\r\n{lines}\r\n".encode() + content
