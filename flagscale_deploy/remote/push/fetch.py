"""Fetch pieces from other hosts, several at the same time, over connections that are kept open."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Callable, Dict, Iterator, List, Set, Tuple

from flagscale_deploy.remote.handshake import receive
from flagscale_deploy.remote.peers import connect_peer
from flagscale_deploy.remote.push.hashes import Progress
from flagscale_deploy.remote.push.intake import CorruptError, Intake
from flagscale_deploy.remote.push.store import Store
from flagscale_deploy.remote.push.validate import checked_number
from flagscale_deploy.remote.push.wire import PRESENT, REPLY, REQUEST, SLOWEST

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.push import PieceFailure, PushOrder, PushReply

SILENCE_SECONDS = 10.0
"""After so long without a byte, or with next to none, a fetch has failed; the piece is fetched elsewhere."""
THREADS = 4
"""Pieces that are fetched at the same time."""
BUFFER = 1 << 20
Address = Tuple[str, int]
Reply = Callable[["PushReply"], None]


class Fetcher:
    """Threads that carry out the orders `fetch`, in their order, and reply `got` or `failed` to each.

    `broken` is called with what is wrong with this host itself, such as a full disk.
    """

    def __init__(
        self, store: Store, token: bytes, reply: Reply, broken: Callable[[str], None], received: Progress
    ) -> None:
        self._store, self._token, self._reply, self._broken, self._received = store, token, reply, broken, received
        self._orders: queue.Queue[PushOrder] = queue.Queue()
        self._idle: Dict[Address, List[socket.socket]] = {}
        self._busy: Dict[int, socket.socket] = {}
        self._cancelled: Set[int] = set()
        self._lock = threading.Lock()
        for _ in range(THREADS):
            threading.Thread(target=self._work, daemon=True).start()

    def order(self, order: PushOrder) -> None:
        """Queue an order. Raises ValueError for a piece or an address that cannot be."""
        checked_number(order["fetch"], range(len(self._store.pieces)), "piece")
        checked_number(order["from"][1], range(1, 1 << 16), "port")
        ip_address(order["from"][0])
        self._orders.put(order)

    def cancel(self, number: int) -> None:
        """Cancel the fetch of a piece; does nothing if it has ended."""
        with self._lock:
            self._cancelled.add(number)
            with contextlib.suppress(KeyError, OSError):
                self._busy[number].shutdown(socket.SHUT_RDWR)

    def _work(self) -> None:
        buffer = memoryview(bytearray(BUFFER))
        while True:
            order = self._orders.get()
            number, address = int(order["fetch"]), (str(order["from"][0]), int(order["from"][1]))
            began = time.monotonic()
            try:
                self._fetch(number, address, buffer)
                self._reply({"got": number, "seconds": time.monotonic() - began})
            except _ConnectError as error:
                self._fail(number, "connect", str(error))
            except CorruptError as error:
                self._fail(number, "corrupt", str(error))
            except _TransferError as error:
                self._fail(number, "transfer", str(error))
            except (OSError, ValueError) as error:  # of our own files: the disk is full, or they were removed
                self._broken("%s" % error)
            with self._lock:
                self._cancelled.discard(number)

    def _fail(self, number: int, kind: PieceFailure, why: str) -> None:
        cancelled = number in self._cancelled
        self._reply({"failed": number, "kind": "cancelled" if cancelled else kind, "why": why})

    def _fetch(self, number: int, address: Address, buffer: memoryview) -> None:
        connection = self._connection(number, address)
        try:
            with Intake(self._store, number) as intake:
                with _transfer_errors():
                    connection.settimeout(SILENCE_SECONDS)
                    connection.sendall(REQUEST.pack(number))
                    state, size = REPLY.unpack(receive(connection, REPLY.size, SILENCE_SECONDS))
                if state != PRESENT or size != intake.missing:
                    raise _TransferError("it does not have the piece")
                self._take(connection, intake, buffer)
                intake.end()
        except BaseException:
            connection.close()
            raise
        finally:
            with self._lock:
                self._busy.pop(number, None)
        with self._lock:
            self._idle.setdefault(address, []).append(connection)

    def _take(self, connection: socket.socket, intake: Intake, buffer: memoryview) -> None:
        """Receive a piece. Raises _TransferError if it ends before, or comes more slowly than SLOWEST for a while."""
        connection.settimeout(SILENCE_SECONDS)
        due, at_most = 0.0, 0.0
        while intake.missing:
            if time.monotonic() >= due:
                if due and intake.missing > at_most:
                    raise _TransferError("it sends too slowly")
                due, at_most = time.monotonic() + SILENCE_SECONDS, max(0, intake.missing - SLOWEST * SILENCE_SECONDS)
            with _transfer_errors():
                count = connection.recv_into(buffer, min(intake.missing, BUFFER))
            if not count:
                raise _TransferError("the connection ended")
            self._received(count)
            intake.take(buffer[:count])

    def _connection(self, number: int, address: Address) -> socket.socket:
        """Return a connection to a host, registered as busy with the piece. Raises _ConnectError."""
        with self._lock:
            kept = self._idle.get(address)
            connection = kept.pop() if kept else None
        if connection is None:
            connection = _connect(address, self._token)
        with self._lock:
            if number not in self._cancelled:
                self._busy[number] = connection
                return connection
        connection.close()
        raise _ConnectError("cancelled")


class _ConnectError(Exception):
    """The other host cannot be connected to."""


class _TransferError(Exception):
    """The connection failed during a transfer."""


def _connect(address: Address, token: bytes) -> socket.socket:
    try:
        return connect_peer(address, token)[0]
    except OSError as error:
        raise _ConnectError(str(error.strerror or error)) from error


@contextlib.contextmanager
def _transfer_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _TransferError(str(error.strerror or error)) from error
