"""How fast a connection is: the time of a round trip, and the bytes that come in a short while."""

from __future__ import annotations

import socket
import time
from typing import Callable, Dict, Optional

from flagscale_deploy.remote.network_test.listener import ECHO, FLOOD, family

PATIENCE_SECONDS = 2.0
ROUND_TRIPS = 20
SETTLE_SECONDS, COUNTED_SECONDS = 0.05, 0.2
"""The beginning is not counted: TCP has to find its speed, and a shaped link lets the first of it through at once."""
BUFFER = 256 << 10
Look = Callable[[str, int, bytes, str], Optional[float]]


def measure(address: str, port: int, password: str, answer: str) -> Dict[str, Optional[float]]:
    """`latency`: seconds of a round trip, the lower quartile of 20, since a busy host is late at times; `bandwidth`:
    bytes a second that come from there.

    None where the other side did not answer in time. Takes about 0.3 s.
    """
    return {
        "latency": _quietly(_latency, address, port, ECHO + password.encode(), answer),
        "bandwidth": _quietly(_bandwidth, address, port, FLOOD + password.encode(), answer),
    }


def entertain(connection: socket.socket, purpose: bytes) -> None:
    """Serve a guest that measures; it ends that by going, and it is not waited for longer than 2 s."""
    connection.settimeout(PATIENCE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if purpose == ECHO:
        for _ in range(ROUND_TRIPS):
            if not connection.recv(1):
                return
            connection.send(b".")
        return
    data = bytes(BUFFER)
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        connection.sendall(data)


def _quietly(look: Look, address: str, port: int, hello: bytes, answer: str) -> Optional[float]:
    try:
        return look(address, port, hello, answer)
    except OSError:
        return None


def _latency(address: str, port: int, hello: bytes, answer: str) -> Optional[float]:
    with _connected(address, port, hello, answer) as connection:
        times = []
        for _ in range(ROUND_TRIPS):
            began = time.monotonic()
            connection.send(b".")
            if not connection.recv(1):
                return None
            times.append(time.monotonic() - began)
    return sorted(times)[len(times) // 4]


def _bandwidth(address: str, port: int, hello: bytes, answer: str) -> Optional[float]:
    buffer = bytearray(BUFFER)
    with _connected(address, port, hello, answer) as connection:
        connection.recv_into(buffer, 1)
        settled = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < settled:
            connection.recv_into(buffer)
        began, got = time.monotonic(), 0
        while time.monotonic() - began < COUNTED_SECONDS:
            count = connection.recv_into(buffer)
            if not count:
                break
            got += count
        return got / (time.monotonic() - began)


def _connected(address: str, port: int, hello: bytes, answer: str) -> socket.socket:
    """A connection whose other side has answered as agreed. Raises OSError."""
    connection = socket.socket(family(address))
    try:
        connection.settimeout(PATIENCE_SECONDS)
        connection.connect((address, port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.send(hello)
        heard = b""
        while len(heard) < len(answer):
            more = connection.recv(len(answer) - len(heard))
            if not more:
                break
            heard += more
        if heard != answer.encode():
            raise ConnectionError("something else answers there")
    except OSError:
        connection.close()
        raise
    return connection
