"""A server that gives pieces to the other hosts of the same push, and nothing to anybody else."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from typing import Callable, Iterator, Optional, Set

from flagscale_deploy.remote.handshake import authenticate, family, receive
from flagscale_deploy.remote.push.tree import Piece, bytes_of
from flagscale_deploy.remote.push.wire import ABSENT, PRESENT, REPLY, REQUEST

SEND_SECONDS = 20.0
"""A client that takes nothing for so long is dropped."""
MAX_UNAUTHENTICATED = 64
"""The most clients at one time that have not finished the handshake."""
ACCEPT_RETRY_SECONDS = 0.02
FindPiece = Callable[[int], Optional[Piece]]
"""Return the piece of this number, None where it is not there (yet)."""
OpenFile = Callable[[int], int]


class PieceServer:
    """Listens on one address of this host until it is closed; each client has a thread.

    Raises OSError, with the address in its text, where it cannot listen there.
    """

    def __init__(self, address: str, token: bytes, find_piece: FindPiece, open_file: OpenFile) -> None:
        self._token, self._find_piece, self._open_file = token, find_piece, open_file
        self._clients: Set[socket.socket] = set()
        self._lock = threading.Lock()
        self._unauthenticated = threading.BoundedSemaphore(MAX_UNAUTHENTICATED)
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
            for connection in (self._socket, *self._clients):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                if self._socket.fileno() < 0:
                    return
                time.sleep(ACCEPT_RETRY_SECONDS)  # the client has gone, or there are no file descriptors at present
                continue
            if not self._unauthenticated.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), self._registered(connection):
            try:
                authenticate(connection, self._token, is_client=False)
            finally:
                self._unauthenticated.release()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                connection.settimeout(None)  # the client may ask at any time; the end of its connection is noticed
                (number,) = REQUEST.unpack(receive(connection, REQUEST.size))
                connection.settimeout(SEND_SECONDS)
                self._send(connection, number)

    def _send(self, connection: socket.socket, number: int) -> None:
        piece = self._find_piece(number)
        if piece is None:
            connection.sendall(REPLY.pack(ABSENT, 0))
            return
        connection.sendall(REPLY.pack(PRESENT, bytes_of(piece)))
        for span in piece:
            with os.fdopen(self._open_file(span.file), "rb", buffering=0) as file:
                if connection.sendfile(file, span.offset, span.length) != span.length:
                    raise ConnectionError("a file became shorter")

    @contextlib.contextmanager
    def _registered(self, connection: socket.socket) -> Iterator[None]:
        with self._lock:
            self._clients.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._clients.discard(connection)
            connection.close()
