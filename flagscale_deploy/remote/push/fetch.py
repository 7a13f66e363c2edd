"""Gets pieces from other hosts, several at the same time, over connections that are kept."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from typing import TYPE_CHECKING, Callable, Dict, Iterator, List, Set, Tuple

from flagscale_deploy.remote.handshake import authenticate, family, receive
from flagscale_deploy.remote.push.hashes import Progress
from flagscale_deploy.remote.push.intake import CorruptError, Intake
from flagscale_deploy.remote.push.store import Store
from flagscale_deploy.remote.push.wire import PRESENT, REPLY, REQUEST

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.push import PushOrder, PushReply

CONNECT_SECONDS = 3.0
SILENCE_SECONDS = 10.0
"""A host that sends nothing for so long is given up; the piece is asked for elsewhere."""
THREADS = 4
"""Pieces that are fetched at the same time."""
BUFFER = 1 << 20
Place = Tuple[str, int]
Say = Callable[["PushReply"], None]


class Fetcher:
    """Threads that carry out orders {"fetch": piece, "from": [address, port]}, in their order.

    Each says {"got": piece, "seconds"} or {"failed": piece, "why", "kind": "connect" | "transfer" | "corrupt" |
    "cancelled"}; what this host itself is at fault for is said by `broken`.
    """

    def __init__(self, store: Store, token: bytes, say: Say, broken: Callable[[str], None], received: Progress) -> None:
        self._store, self._token, self._say, self._broken, self._received = store, token, say, broken, received
        self._orders: queue.Queue[PushOrder] = queue.Queue()
        self._idle: Dict[Place, List[socket.socket]] = {}
        self._busy: Dict[int, socket.socket] = {}
        self._cancelled: Set[int] = set()
        self._changing = threading.Lock()
        for _ in range(THREADS):
            threading.Thread(target=self._work, daemon=True).start()

    def order(self, order: PushOrder) -> None:
        """Have a piece fetched."""
        self._orders.put(order)

    def cancel(self, number: int) -> None:
        """Give up a piece that was ordered; harmless where it has come."""
        with self._changing:
            self._cancelled.add(number)
            with contextlib.suppress(KeyError, OSError):
                self._busy[number].shutdown(socket.SHUT_RDWR)

    def _work(self) -> None:
        buffer = memoryview(bytearray(BUFFER))
        while True:
            order = self._orders.get()
            number, place = int(order["fetch"]), (str(order["from"][0]), int(order["from"][1]))
            began = time.monotonic()
            try:
                self._fetch(number, place, buffer)
                self._say({"got": number, "seconds": time.monotonic() - began})
            except _CallError as error:
                self._fail(number, "connect", str(error))
            except CorruptError as error:
                self._fail(number, "corrupt", str(error))
            except _WireError as error:
                self._fail(number, "transfer", str(error))
            except (OSError, ValueError) as error:  # our own files: the disk is full, or somebody removed them
                self._broken("%s" % error)
            with self._changing:
                self._cancelled.discard(number)

    def _fail(self, number: int, kind: str, why: str) -> None:
        kind = "cancelled" if number in self._cancelled else kind
        self._say({"failed": number, "kind": kind, "why": why})

    def _fetch(self, number: int, place: Place, buffer: memoryview) -> None:
        connection = self._connection(number, place)
        try:
            with Intake(self._store, number) as intake:
                with _wire_errors():
                    connection.sendall(REQUEST.pack(number))
                    answer, size = REPLY.unpack(receive(connection, REPLY.size))
                if answer != PRESENT or size != intake.missing:
                    raise _WireError("it does not have the piece")
                while intake.missing:
                    with _wire_errors():
                        count = connection.recv_into(buffer, min(intake.missing, BUFFER))
                    if not count:
                        raise _WireError("the connection ended")
                    self._received(count)
                    intake.take(buffer[:count])
                intake.end()
        except BaseException:
            connection.close()
            raise
        finally:
            with self._changing:
                self._busy.pop(number, None)
        with self._changing:
            self._idle.setdefault(place, []).append(connection)

    def _connection(self, number: int, place: Place) -> socket.socket:
        """A connection to a host, noted as the piece's. Raises _CallError."""
        with self._changing:
            kept = self._idle.get(place)
            connection = kept.pop() if kept else None
        if connection is None:
            connection = _call(place, self._token)
        with self._changing:
            if number not in self._cancelled:
                self._busy[number] = connection
                return connection
        connection.close()
        raise _CallError("cancelled")


class _CallError(Exception):
    """The other host can't be talked to."""


class _WireError(Exception):
    """A connection broke."""


def _call(place: Place, token: bytes) -> socket.socket:
    connection = socket.socket(family(place[0]))
    try:
        connection.settimeout(CONNECT_SECONDS)
        connection.connect(place)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        authenticate(connection, token, is_client=True)
        connection.settimeout(SILENCE_SECONDS)
    except OSError as error:
        connection.close()
        raise _CallError(str(error.strerror or error)) from error
    return connection


@contextlib.contextmanager
def _wire_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _WireError(str(error.strerror or error)) from error
