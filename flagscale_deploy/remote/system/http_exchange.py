"""Exchange one HTTP request and reply over a connected socket, bounded in bytes and in total time."""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from typing import Any, Mapping, Optional, Tuple, Union
from urllib.parse import urlsplit

LIMIT = 4 << 20
"""Bytes of a reply with its headers. A page of metrics has about 0.1 MB for each engine of a server."""
PIECE = 1 << 16

Connected = Union[socket.socket, ssl.SSLSocket]


def exchange(
    connected: Connected, url: str, body: Optional[bytes], headers: Mapping[str, str], end: float
) -> Tuple[int, str]:
    """Send a request (POST with a body, else GET) and return status and text of the reply.

    Raises OSError if that is not done by `end` (monotonic), is no HTTP, or is longer than LIMIT.
    """
    place = urlsplit(url)
    talk = http.client.HTTPConnection(str(place.hostname), int(place.port or 0))
    talk.sock = _Bounded(connected, end)  # all that http.client uses of a socket
    try:
        talk.request("GET" if body is None else "POST", place.path or "/", body, {**headers, "Connection": "close"})
        reply = talk.getresponse()
        pieces = iter(lambda: reply.read(PIECE), b"")  # not at once: it would make room for as much as is announced
        return reply.status, b"".join(pieces).decode("utf-8", "replace")
    except http.client.HTTPException as error:
        raise OSError("not an HTTP answer: %s %s" % (type(error).__name__, str(error)[:200])) from error


class _Bounded:
    """A connected socket for http.client: all of its reads and writes together have one deadline, and LIMIT."""

    def __init__(self, connected: Connected, end: float) -> None:
        self._connected, self._end = connected, end

    def sendall(self, data: bytes) -> None:
        self._connected.settimeout(seconds_left(self._end))
        self._connected.sendall(data)

    def makefile(self, *_: object) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._connected, self._end), PIECE)

    def close(self) -> None:
        """Leave the socket open: it belongs to the caller."""


class _Reader(io.RawIOBase):
    def __init__(self, connected: Connected, end: float) -> None:
        self._connected, self._end, self._left = connected, end, LIMIT

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        self._connected.settimeout(seconds_left(self._end))
        count = self._connected.recv_into(buffer)
        self._left -= count
        if self._left < 0:
            raise OSError("an HTTP answer of more than %d MiB" % (LIMIT >> 20))
        return count


def seconds_left(end: float) -> float:
    """Return the seconds until a moment of time.monotonic(). Raises TimeoutError once it is over."""
    left = end - time.monotonic()
    if left <= 0:
        raise socket.timeout("timed out")
    return left
