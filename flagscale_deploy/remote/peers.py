"""Connections between hosts of one run: both ends prove that they know its token (`handshake`)."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Callable, Collection, Iterator, Optional, Sequence, Set, Tuple

from flagscale_deploy.remote.handshake import Handshake, authenticate, family
from flagscale_deploy.remote.slots import Slots

MOST_STRANGERS, MOST_PEERS = 32, 64
"""The most clients at one time that have not finished the handshake: from unknown addresses, and from those of peers.

Whoever does not belong to the run cannot take the slots of its hosts.
"""
MOST_CLIENTS = 4096
"""The most clients at one time that have."""
ACCEPT_RETRY_SECONDS = 0.02
CONNECT_SECONDS = 3.0
ServePeer = Callable[[socket.socket, Handshake], None]
"""Serve a client on its connection, after this handshake, until it has gone; whatever it raises ends it as well.

It is written nowhere: a client could fill a disk with errors.
"""


def connect_peer(address: Tuple[str, int], token: bytes) -> Tuple[socket.socket, bytes]:
    """Return a connection to a `PeerServer`, with the connection's key. Raises OSError."""
    connection = socket.socket(family(address[0]))
    try:
        connection.settimeout(CONNECT_SECONDS)
        connection.connect(address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, authenticate(connection, token, is_client=True).key
    except OSError:
        connection.close()
        raise


class PeerServer:
    """Listens on one address of this host until it is closed; each client has a thread, at most `of_one` an address.

    A client knows one of the `tokens`. `peers` are the addresses of the run's hosts. Raises OSError, with the address
    in its text, where it cannot listen there; port 0 lets the kernel choose.
    """

    def __init__(
        self, address: str, port: int, tokens: Sequence[bytes], serve: ServePeer, peers: Collection[str], *, of_one: int
    ) -> None:
        self._tokens, self._serve, self._peers = tokens, serve, frozenset(peers)
        self._connections: Set[socket.socket] = set()
        self._lock = threading.Lock()
        self._waiting = {True: Slots[socket.socket](MOST_PEERS), False: Slots[socket.socket](MOST_STRANGERS)}
        """Those that have not finished the handshake: of peers (True), and of unknown addresses."""
        self._clients = Slots[socket.socket](MOST_CLIENTS, of_one)
        self._socket = socket.socket(family(address))
        try:
            if port:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((address, port))
            self._socket.listen(128)
        except OSError as error:
            self._socket.close()
            raise OSError("cannot listen on %s: %s" % (address, error.strerror)) from error
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def clients(self) -> int:
        """Return how many clients are connected."""
        return len(self._connections)

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
                threading.Thread(target=self._shake_hands, args=(connection, address, waiting), daemon=True).start()
            except RuntimeError:  # no more threads at present
                waiting.leave(connection)
                connection.close()

    def _shake_hands(self, connection: socket.socket, address: str, waiting: Slots[socket.socket]) -> None:
        with contextlib.suppress(Exception), self._registered(connection):
            try:
                handshake = authenticate(connection, *self._tokens, is_client=False)
            finally:
                waiting.leave(connection)
            self._disconnect(self._clients.enter(connection, address))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._serve(connection, handshake)

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
