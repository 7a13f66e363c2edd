"""A server that gives pieces to the other hosts of the same push, and nothing to anybody else."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from typing import Callable, Collection, Optional

from flagscale_deploy.remote.handshake import Handshake, receive
from flagscale_deploy.remote.peers import PeerServer
from flagscale_deploy.remote.push.tree import Piece, Span, bytes_of
from flagscale_deploy.remote.push.wire import ABSENT, PRESENT, REPLY, REQUEST, SLOWEST

SEND_SECONDS = 20.0
"""A client that takes nothing for so long is dropped."""
MOST_OF_PEER = 64
"""The most clients at one time of one address; a host has four (fetch.THREADS)."""
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
        self._find_piece, self._open_file = find_piece, open_file
        self._server = PeerServer(address, 0, [token], self._serve, peers, of_one=MOST_OF_PEER)
        self.port = self._server.port

    def close(self) -> None:
        """Stop listening, and close the connection of every client."""
        self._server.close()

    def _serve(self, connection: socket.socket, _: Handshake) -> None:
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
