"""Test listeners that reply only to authenticated peers of the same check."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import selectors
import socket
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Callable, List, Optional

from flagscale_deploy.remote.handshake import Handshake, family
from flagscale_deploy.remote.slots import Slots

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.check import OpenedPort

ECHO, STREAM = b"e", b"s"
"""What a client may ask for after the handshake: its bytes back (latency), or as many as it takes (bandwidth)."""
REQUEST_SECONDS = 5.0
"""How long a client may take for the handshake and its request, in all."""
MOST_CLIENTS = 1024
"""The most clients at one time that have not asked for anything yet, and no more than half of the files we may open."""
MOST_SERVED, MOST_SERVED_OF_ONE = 64, 4
"""The most clients at one time that measure, and those of one address."""
ClientHandler = Callable[[socket.socket, bytes], None]


class PendingClient:
    """A client that has not asked for anything yet."""

    def __init__(self, connection: socket.socket, address: str, token: bytes) -> None:
        self.connection, self.address = connection, address
        self.handshake = Handshake(token, is_client=False)
        self.deadline = time.monotonic() + REQUEST_SECONDS


class Listener:
    """The listening sockets of a program; `serve` serves an authenticated client with what it asks for, in a thread."""

    def __init__(self, selector: selectors.BaseSelector, token: bytes, serve: ClientHandler) -> None:
        self._selector, self._token, self._serve = selector, token, serve
        self._clients: List[PendingClient] = []
        most = min(MOST_CLIENTS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._slots = Slots[PendingClient](most)
        self._served = Slots[socket.socket](MOST_SERVED, MOST_SERVED_OF_ONE)

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
            connection, address = server.accept()
        except OSError:  # the client has gone already
            return
        connection.setblocking(False)
        client = PendingClient(connection, str(address[0]), self._token)
        leaving = self._slots.enter(client, client.address)
        if leaving is not None:
            self._drop(leaving)
        self._clients.append(client)
        self._selector.register(connection, selectors.EVENT_READ, partial(self._receive, client))

    def _receive(self, client: PendingClient) -> None:
        if client not in self._clients:  # another has taken its place, in this very turn
            return
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
        if missing or data not in (ECHO, STREAM):
            self._drop(client)
            return
        self._forget(client)
        leaving = self._served.enter(client.connection, client.address)
        if leaving is not None:
            with contextlib.suppress(OSError):
                leaving.shutdown(socket.SHUT_RDWR)
        try:
            threading.Thread(target=self._serve_alone, args=(client.connection, data), daemon=True).start()
        except RuntimeError:  # no more threads at present
            self._served.leave(client.connection)
            client.connection.close()

    def _serve_alone(self, connection: socket.socket, request: bytes) -> None:
        with contextlib.suppress(OSError), connection:
            self._serve(connection, request)
        self._served.leave(connection)

    def _drop(self, client: PendingClient) -> None:
        self._forget(client)
        client.connection.close()

    def _forget(self, client: PendingClient) -> None:
        self._selector.unregister(client.connection)
        self._slots.leave(client)
        self._clients.remove(client)


def receive_available(connection: socket.socket, limit: int) -> Optional[bytes]:
    """Return what has come on a non-blocking connection: b"" at its end or if it broke, None if nothing has."""
    try:
        return connection.recv(limit)
    except BlockingIOError:
        return None
    except OSError:
        return b""
