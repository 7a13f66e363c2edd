"""A server that gives pieces to the other hosts of the same push, and nothing to anybody else."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from typing import Callable, Collection, Iterator, Optional, Set

from flagscale_deploy.remote.handshake import authenticate, family, receive
from flagscale_deploy.remote.push.tree import Piece, Span, bytes_of
from flagscale_deploy.remote.push.wire import ABSENT, PRESENT, REPLY, REQUEST, SLOWEST
from flagscale_deploy.remote.slots import Slots

SEND_SECONDS = 20.0
"""A client that takes nothing for so long is dropped."""
MOST_STRANGERS, MOST_PEERS = 32, 64
"""The most clients at one time that have not finished the handshake: from unknown addresses, and from those of peers.

Whoever does not belong to the push cannot take the slots of its hosts.
"""
MOST_CLIENTS, MOST_OF_PEER = 4096, 64
"""The most clients at one time that have, and those of one address; a host has four (fetch.THREADS)."""
ACCEPT_RETRY_SECONDS = 0.02
FindPiece = Callable[[int], Optional[Piece]]
"""Return the piece of this number, None where it is not there (yet)."""
OpenFile = Callable[[int], int]


class PieceServer:
    """Listens on one address of this host until it is closed; each client has a thread.

    `peers` are the addresses of the push's hosts. Raises OSError, with the address in its text, where it cannot listen
    there.
    """

    def __init__(
        self, address: str, token: bytes, find_piece: FindPiece, open_file: OpenFile, peers: Collection[str] = ()
    ) -> None:
        self._token, self._find_piece, self._open_file = token, find_piece, open_file
        self._peers = frozenset(peers)
        self._connections: Set[socket.socket] = set()
        self._lock = threading.Lock()
        self._waiting = {True: Slots[socket.socket](MOST_PEERS), False: Slots[socket.socket](MOST_STRANGERS)}
        """Those that have not finished the handshake: of peers (True), and of unknown addresses."""
        self._clients = Slots[socket.socket](MOST_CLIENTS, MOST_OF_PEER)
        self._socket = socket.socket(family(address))
        try:
            self._socket.bind((address, 0))
            self._socket.listen(128)
        except OSError as error:
            self._socket.close()
            raise OSError("cannot listen on %s: %s" % (address, error.strerror)) from error
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening, and close the connection of every client."""
        with self._lock:
            for connection in (self._socket, *self._connections):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, client = self._socket.accept()
            except OSError:
                if self._socket.fileno() < 0:
                    return
                time.sleep(ACCEPT_RETRY_SECONDS)  # the client has gone, or there are no file descriptors at present
                continue
            address = str(client[0]).partition("%")[0]
            waiting = self._waiting[address in self._peers]
            self._disconnect(waiting.enter(connection, address))
            try:
                threading.Thread(target=self._serve, args=(connection, address, waiting), daemon=True).start()
            except RuntimeError:  # no more threads at present
                waiting.leave(connection)
                connection.close()

    def _serve(self, connection: socket.socket, address: str, waiting: Slots[socket.socket]) -> None:
        with contextlib.suppress(OSError), self._registered(connection):
            try:
                authenticate(connection, self._token, is_client=False)
            finally:
                waiting.leave(connection)
            self._disconnect(self._clients.enter(connection, address))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                connection.settimeout(None)  # the client may ask at any time; the end of its connection is noticed
                request = connection.recv(REQUEST.size)
                if not request:
                    return
                request += receive(connection, REQUEST.size - len(request), SEND_SECONDS)
                self._send(connection, *REQUEST.unpack(request))

    def _send(self, connection: socket.socket, number: int) -> None:
        connection.settimeout(SEND_SECONDS)
        piece = self._find_piece(number)
        if piece is None:
            connection.sendall(REPLY.pack(ABSENT, 0))
            return
        size = bytes_of(piece)
        deadline = time.monotonic() + SEND_SECONDS + size / SLOWEST
        connection.sendall(REPLY.pack(PRESENT, size))
        for span in piece:
            descriptor = self._open_file(span.file)
            try:
                _send_span(connection, descriptor, span, deadline)
            finally:
                os.close(descriptor)

    def _disconnect(self, connection: Optional[socket.socket]) -> None:
        """End a client's connection, which its thread notices."""
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def _registered(self, connection: socket.socket) -> Iterator[None]:
        with self._lock:
            self._connections.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._connections.discard(connection)
            self._clients.leave(connection)
            connection.close()


def _send_span(connection: socket.socket, descriptor: int, span: Span, deadline: float) -> None:
    """Send a part of a file, without copying it. Raises OSError, also if the client takes it too slowly."""
    writable = select.poll()
    writable.register(connection, select.POLLOUT)
    offset, end = span.offset, span.offset + span.length
    while offset < end:
        seconds = min(SEND_SECONDS, deadline - time.monotonic())
        if seconds <= 0 or not writable.poll(1000 * seconds):
            raise TimeoutError("the client takes it too slowly")
        with contextlib.suppress(BlockingIOError):
            count = os.sendfile(connection.fileno(), descriptor, offset, end - offset)
            if not count:
                raise ConnectionError("a file became shorter")
            offset += count
