"""Exchange one HTTP request and reply over a connected socket, bounded in bytes and in total time."""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from typing import Any, Callable, Mapping, Optional, Tuple, Union
from urllib.parse import urlsplit

from flagscale_deploy.remote.wire import cut

LIMIT = 4 << 20
"""Bytes of a reply with its headers. A page of metrics has about 0.1 MB for each engine of a server."""
STREAM_LIMIT = 64 << 20
"""Bytes of a reply that is taken as it comes. A token of a chat has about 300."""
PIECE = 1 << 16

Take = Callable[[bytes], None]
Connected = Union[socket.socket, ssl.SSLSocket]


def exchange(
    connected: Connected,
    url: str,
    body: Optional[bytes],
    headers: Mapping[str, str],
    end: float,
    take: Optional[Take] = None,
) -> Tuple[int, str]:
    """Send a request (POST with a body, else GET) and return status and text of the reply.

    With `take`, it is called with each piece of a reply of status 200 as it comes, whose text is "" then. Raises
    OSError if that is not done by `end` (monotonic), is no HTTP, or is longer than LIMIT (STREAM_LIMIT with `take`).
    """
    place = urlsplit(url)
    talk = http.client.HTTPConnection(str(place.hostname), int(place.port or 0))
    talk.sock = _Bounded(connected, end, STREAM_LIMIT if take else LIMIT)  # all that http.client uses of a socket
    try:
        target = (place.path or "/") + ("?" + place.query if place.query else "")
        talk.request("GET" if body is None else "POST", target, body, {**headers, "Connection": "close"})
        reply = talk.getresponse()
        if take is not None and reply.status == 200:
            for piece in iter(lambda: reply.read1(PIECE), b""):
                take(piece)
            return reply.status, ""
        pieces = iter(lambda: reply.read(PIECE), b"")  # not at once: it would make room for as much as is announced
        return reply.status, b"".join(pieces).decode("utf-8", "replace")
    except http.client.HTTPException as error:
        raise OSError("not an HTTP answer: %s %s" % (type(error).__name__, cut(str(error), 200))) from error


class _Bounded:
    """A connected socket for http.client: all of its reads and writes together have one deadline and a limit."""

    def __init__(self, connected: Connected, end: float, limit: int) -> None:
        self._connected, self._end, self._limit = connected, end, limit

    def sendall(self, data: bytes) -> None:
        self._connected.settimeout(seconds_left(self._end))
        self._connected.sendall(data)

    def makefile(self, *_: object) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._connected, self._end, self._limit), PIECE)

    def close(self) -> None:
        """Leave the socket open: it belongs to the caller."""


class _Reader(io.RawIOBase):
    def __init__(self, connected: Connected, end: float, limit: int) -> None:
        self._connected, self._end, self._limit, self._left = connected, end, limit, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        self._connected.settimeout(seconds_left(self._end))
        count = self._connected.recv_into(buffer)
        self._left -= count
        if self._left < 0:
            raise OSError("an HTTP answer of more than %d MiB" % (self._limit >> 20))
        return count


def seconds_left(end: float) -> float:
    """Return the seconds until a moment of time.monotonic(). Raises TimeoutError once it is over."""
    left = end - time.monotonic()
    if left <= 0:
        raise socket.timeout("timed out")
    return left
