"""A listener that gives pieces to the other hosts of the same push, and nothing to anybody else."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from typing import Callable, Iterator, Optional, Set

from flagscale_deploy.remote.network_test.listener import family
from flagscale_deploy.remote.push.tree import Piece, bytes_of
from flagscale_deploy.remote.push.wire import ABSENT, ANSWERED, ASKED, THERE, receive, welcome

SEND_SECONDS = 20.0
"""A caller that takes nothing for so long is given up."""
STRANGERS = 64
"""The most callers at one time that have not shown yet that they know the token."""
BREATH = 0.02
Have = Callable[[int], Optional[Piece]]
"""The piece of this number, None where it is not there (yet)."""
Open = Callable[[int], int]


class Listener:
    """Listens on one address of this host, until it is closed; each caller has a thread.

    Raises OSError, saying so, where it can't listen there.
    """

    def __init__(self, address: str, token: bytes, have: Have, open_file: Open) -> None:
        self._token, self._have, self._open = token, have, open_file
        self._callers: Set[socket.socket] = set()
        self._changing = threading.Lock()
        self._strangers = threading.BoundedSemaphore(STRANGERS)
        self._door = socket.socket(family(address))
        try:
            self._door.bind((address, 0))
            self._door.listen(128)
        except OSError as error:
            self._door.close()
            raise OSError("cannot listen on %s: %s" % (address, error.strerror)) from error
        self.port = int(self._door.getsockname()[1])
        threading.Thread(target=self._answer, daemon=True).start()

    def close(self) -> None:
        """Listen no more, and let go of every caller."""
        with self._changing:
            for each in (self._door, *self._callers):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()

    def _answer(self) -> None:
        while True:
            try:
                connection, _ = self._door.accept()
            except OSError:
                if self._door.fileno() < 0:
                    return
                time.sleep(BREATH)  # it went away again, or there are no more descriptors for the moment
                continue
            if not self._strangers.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._entertain, args=(connection,), daemon=True).start()

    def _entertain(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), self._known(connection):
            try:
                welcome(connection, self._token)
            finally:
                self._strangers.release()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                connection.settimeout(None)  # it asks when it has something to ask for; its end is heard
                (number,) = ASKED.unpack(receive(connection, ASKED.size))
                connection.settimeout(SEND_SECONDS)
                self._give(connection, number)

    def _give(self, connection: socket.socket, number: int) -> None:
        piece = self._have(number)
        if piece is None:
            connection.sendall(ANSWERED.pack(ABSENT, 0))
            return
        connection.sendall(ANSWERED.pack(THERE, bytes_of(piece)))
        for span in piece:
            with os.fdopen(self._open(span.file), "rb", buffering=0) as file:
                if connection.sendfile(file, span.offset, span.length) != span.length:
                    raise ConnectionError("a file became shorter")

    @contextlib.contextmanager
    def _known(self, connection: socket.socket) -> Iterator[None]:
        with self._changing:
            self._callers.add(connection)
        try:
            yield
        finally:
            with self._changing:
                self._callers.discard(connection)
            connection.close()
