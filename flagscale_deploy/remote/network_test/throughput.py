"""Measure a connection: the time of a round trip, and the bytes that come in a short while."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Callable, Optional

from flagscale_deploy.remote.handshake import authenticate, family, wait_until
from flagscale_deploy.remote.network_test.listener import ECHO, STREAM

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.check import Measured

PEER_SECONDS = 2.0
"""How long a measurement may take, on either side."""
ROUND_TRIPS = 20
SETTLE_SECONDS, COUNTED_SECONDS = 0.05, 0.2
"""The beginning is not counted: TCP has to find its speed, and a shaped link lets the first of it through at once."""
BUFFER = 256 << 10
Measurement = Callable[[str, int, bytes], Optional[float]]


def measure(address: str, port: int, token: bytes) -> Measured:
    """Measure the way to a listener, in about 0.3 s.

    Return `latency`, the seconds of a round trip (the lower quartile of 20, since a busy host is late at times), and
    `bandwidth`, the bytes a second that come from there; None where the other side did not reply in time.
    """
    return {
        "latency": _or_none(_latency, address, port, token),
        "bandwidth": _or_none(_bandwidth, address, port, token),
    }


def serve_measurement(connection: socket.socket, request: bytes) -> None:
    """Serve one measuring client until it disconnects. Raises OSError after 2 s."""
    deadline = time.monotonic() + PEER_SECONDS
    wait_until(connection, deadline)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if request == ECHO:
        for _ in range(ROUND_TRIPS):
            wait_until(connection, deadline)
            if not connection.recv(1):
                return
            connection.send(b".")
        return
    data = bytes(BUFFER)
    while True:
        wait_until(connection, deadline)
        connection.sendall(data)


def _or_none(measurement: Measurement, address: str, port: int, token: bytes) -> Optional[float]:
    try:
        return measurement(address, port, token)
    except OSError:
        return None


def _latency(address: str, port: int, token: bytes) -> Optional[float]:
    deadline = time.monotonic() + PEER_SECONDS
    with _connection(address, port, token, ECHO) as connection:
        times = []
        for _ in range(ROUND_TRIPS):
            wait_until(connection, deadline)
            began = time.monotonic()
            connection.send(b".")
            if not connection.recv(1):
                return None
            times.append(time.monotonic() - began)
    return sorted(times)[len(times) // 4]


def _bandwidth(address: str, port: int, token: bytes) -> Optional[float]:
    buffer, deadline = bytearray(BUFFER), time.monotonic() + PEER_SECONDS
    with _connection(address, port, token, STREAM) as connection:
        wait_until(connection, deadline)
        connection.recv_into(buffer, 1)
        settled = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < settled:
            connection.recv_into(buffer)
        began, received = time.monotonic(), 0
        while time.monotonic() - began < COUNTED_SECONDS:
            wait_until(connection, deadline)
            count = connection.recv_into(buffer)
            if not count:
                break
            received += count
        return received / (time.monotonic() - began)


def _connection(address: str, port: int, token: bytes, request: bytes) -> socket.socket:
    """Return a connection to a listener that has been asked for a measurement. Raises OSError."""
    connection = socket.socket(family(address))
    try:
        connection.settimeout(PEER_SECONDS)
        connection.connect((address, port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        authenticate(connection, token, is_client=True, seconds=PEER_SECONDS)
        connection.settimeout(PEER_SECONDS)
        connection.send(request)
    except OSError:
        connection.close()
        raise
    return connection
