"""Test listeners that reply only to authenticated peers of the same check."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import time
from functools import partial
from typing import TYPE_CHECKING, Callable, List, Optional

from flagscale_deploy.remote.handshake import Handshake, family

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.check import OpenedPort

ECHO, STREAM = b"e", b"s"
"""What a client may ask for after the handshake: its bytes back (latency), or as many as it takes (bandwidth)."""
REQUEST_SECONDS = 5.0
"""How long a client may take for the handshake and its request."""
ClientHandler = Callable[[socket.socket, bytes], None]


class PendingClient:
    """A client that has not asked for anything yet."""

    def __init__(self, connection: socket.socket, token: bytes) -> None:
        self.connection = connection
        self.handshake = Handshake(token, is_client=False)
        self.deadline = time.monotonic() + REQUEST_SECONDS


class Listener:
    """The listening sockets of a program; `serve` serves an authenticated client with what it asks for."""

    def __init__(self, selector: selectors.BaseSelector, token: bytes, serve: ClientHandler) -> None:
        self._selector, self._token, self._serve = selector, token, serve
        self._clients: List[PendingClient] = []

    def open(self, address: str, port: int) -> OpenedPort:
        """Listen on an address of this host; port 0 lets the kernel choose.

        Return `{"port": n}`, with `taken` and a `problem` where that cannot be done.
        """
        server = socket.socket(family(address))
        try:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((address, port))
            server.listen(1024)
        except OSError as error:
            server.close()
            return {"port": port, "taken": error.errno == errno.EADDRINUSE, "problem": os.strerror(error.errno or 0)}
        server.setblocking(False)
        self._selector.register(server, selectors.EVENT_READ, partial(self._accept, server))
        return {"port": server.getsockname()[1]}

    def drop_timed_out_clients(self) -> None:
        """Close the connections of clients that did not authenticate and ask in time."""
        now = time.monotonic()
        for client in [client for client in self._clients if client.deadline < now]:
            self._drop(client)

    def _accept(self, server: socket.socket) -> None:
        try:
            connection, _ = server.accept()
        except OSError:  # the client has gone already
            return
        connection.setblocking(False)
        client = PendingClient(connection, self._token)
        self._clients.append(client)
        self._selector.register(connection, selectors.EVENT_READ, partial(self._receive, client))

    def _receive(self, client: PendingClient) -> None:
        missing = client.handshake.missing
        data = receive_available(client.connection, missing or 1)
        if data is None:
            return
        try:
            if data and missing:
                client.connection.send(client.handshake.receive(data))
                return
        except OSError:  # a wrong peer, or one that has gone
            self._drop(client)
            return
        if data in (ECHO, STREAM):
            with contextlib.suppress(OSError):
                self._serve(client.connection, data)
        self._drop(client)

    def _drop(self, client: PendingClient) -> None:
        self._selector.unregister(client.connection)
        client.connection.close()
        self._clients.remove(client)


def receive_available(connection: socket.socket, limit: int) -> Optional[bytes]:
    """Return what has come on a non-blocking connection: b"" at its end or if it broke, None if nothing has."""
    try:
        return connection.recv(limit)
    except BlockingIOError:
        return None
    except OSError:
        return b""
