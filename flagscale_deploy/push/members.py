"""Exchange messages with programs on many hosts at the same time: their replies arrive in one inbox."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator

from flagscale_deploy.errors import DeployError, HostError, InterruptedByUser, RemoteError
from flagscale_deploy.remote.messages.push import PushOrder, PushReply
from flagscale_deploy.transport.remote_program import Program

ALIVE_SECONDS = 5.0
CHUNK = 256 << 10
CREDIT = 6
"""The most chunks on their way to a host: more would delay the orders behind them."""
ROOM_SECONDS = 1.0
MOST_WAITING = 8
"""The most messages of a host in the inbox: one that sends more waits, and takes no memory."""
Message = PushReply | DeployError | None
"""A reply, the error that ended the program, or None: it has ended without one."""
Inbox = queue.Queue[tuple[str, Message]]
Chunks = Iterator[bytes]
TakeReply = Callable[[PushReply], bool]
"""Take a reply out of the inbox; return whether it did."""
ReadPiece = Callable[[int], Chunks]
"""Yield the bytes of a piece, in chunks. Raises OSError, EOFError."""


class Member:
    """A program on a host, with a thread that receives and one that sends. No method waits for the host."""

    def __init__(
        self,
        host: str,
        program: Program[PushReply, PushOrder],
        inbox: Inbox,
        read_piece: ReadPiece | None = None,
        take_reply: TakeReply | None = None,
    ) -> None:
        """Start the threads. `read_piece` reads pieces to send; `take_reply` sees replies before the inbox does."""
        self.host, self._program, self._inbox = host, program, inbox
        self._read_piece, self._take_reply = read_piece, take_reply
        self._orders: deque[PushOrder] = deque()
        self._pieces: deque[int] = deque()
        self._credit = CREDIT
        self._ended = False
        self._room = threading.Semaphore(MOST_WAITING)
        self._condition = threading.Condition()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._receive, self._send)]
        for thread in self._threads:
            thread.start()

    def order(self, order: PushOrder) -> None:
        """Queue an order for the program."""
        with self._condition:
            self._orders.append(order)
            self._condition.notify()

    def send_piece(self, piece: int) -> None:
        """Queue a piece for the program."""
        with self._condition:
            self._pieces.append(piece)
            self._condition.notify()

    def cancel_send(self, piece: int) -> bool:
        """Cancel a piece that has not started; return whether it was cancelled."""
        with self._condition:
            if piece in self._pieces:
                self._pieces.remove(piece)
                return True
            return False

    def close(self) -> None:
        """End the program and the threads."""
        with self._condition:
            self._ended = True
            self._condition.notify()
        self._program.__exit__(None, None, None)

    def note_taken(self) -> None:
        """Note that a message of the host was taken out of the inbox."""
        self._room.release()

    def join(self, seconds: float) -> None:
        """Wait for the threads, after `close`, for so many seconds each at most."""
        for thread in self._threads:
            thread.join(seconds)

    def _receive(self) -> None:
        try:
            for message in self._program.messages():
                if "fed" in message:
                    with self._condition:
                        self._credit = min(CREDIT, self._credit + 1)
                        self._condition.notify()
                elif self._take_reply is None or not self._take_reply(message):
                    while not self._room.acquire(timeout=ROOM_SECONDS):
                        if self._ended:
                            return
                    self._inbox.put((self.host, message))
            self._inbox.put((self.host, None))
        except (HostError, InterruptedByUser) as error:
            self._inbox.put((self.host, error))
        except Exception as error:  # noqa: BLE001 (a closed channel raises many kinds)
            self._inbox.put((self.host, RemoteError(self.host, f"cannot read from its program: {error}")))
        with self._condition:
            self._ended = True
            self._condition.notify()

    def _send(self) -> None:
        try:
            while (order := self._next()) is not None:
                if isinstance(order, int):
                    self._send_chunks(order)
                else:
                    self._program.send(order)
        except HostError:
            return  # the receiving thread gets it as well
        except Exception as error:  # noqa: BLE001 (as above)
            self._inbox.put((self.host, RemoteError(self.host, f"cannot send to its program: {error}")))

    def _next(self) -> PushOrder | int | None:
        """Wait for the next order or piece to send, orders first; return None at the end."""
        with self._condition:
            if not self._orders and not self._pieces and not self._ended:
                self._condition.wait(ALIVE_SECONDS)
            if self._ended:
                return None
            if self._orders:
                return self._orders.popleft()
            return self._pieces.popleft() if self._pieces else {"alive": True}

    def _send_chunks(self, piece: int) -> None:
        assert self._read_piece is not None, "pieces are sent to receivers only"
        at = 0
        try:
            for chunk in self._read_piece(piece):
                if not self._may_send():
                    return
                self._program.send_with({"feed": piece, "at": at, "size": len(chunk)}, chunk)
                at += len(chunk)
        except (OSError, EOFError) as error:
            self._inbox.put(("", {"refused": str(error)}))

    def _may_send(self) -> bool:
        """Wait until another chunk may be sent, and send orders meanwhile; return False at the end."""
        while True:
            with self._condition:
                if not self._credit and not self._orders and not self._ended:
                    self._condition.wait(ALIVE_SECONDS)
                if self._ended:
                    return False
                order = self._orders.popleft() if self._orders else None
                if order is None and self._credit:
                    self._credit -= 1
                    return True
            self._program.send(order or {"alive": True})
