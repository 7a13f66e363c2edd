"""Programs on hosts that are talked to at the same time: what they say comes into one inbox."""

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
"""Chunks that a host may have on its way: more would keep the orders behind them waiting."""
Message = PushReply | DeployError | None
"""What a program says, what ended it, or that it has ended well."""
Inbox = queue.Queue[tuple[str, Message]]
Chunks = Iterator[bytes]
Hear = Callable[[PushReply], bool]
"""Whether a message was what it waited for."""
Read = Callable[[int], Chunks]
"""The bytes of a piece, in chunks. Raises OSError, EOFError."""


class Member:
    """A program on a host, with a thread that listens and one that speaks. Nothing here waits for the host."""

    def __init__(
        self,
        host: str,
        program: Program[PushReply, PushOrder],
        inbox: Inbox,
        read: Read | None = None,
        hear: Hear | None = None,
    ) -> None:
        """`read` gives the pieces that are fed; `hear` takes messages before they come into the inbox."""
        self.host, self._program, self._inbox, self._read, self._hear = host, program, inbox, read, hear
        self._orders: deque[PushOrder] = deque()
        self._pieces: deque[int] = deque()
        self._credit = CREDIT
        self._ended = False
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._listen, self._speak)]
        for thread in self._threads:
            thread.start()

    def order(self, order: PushOrder) -> None:
        """Tell it something."""
        with self._changed:
            self._orders.append(order)
            self._changed.notify()

    def feed(self, piece: int) -> None:
        """Send it a piece."""
        with self._changed:
            self._pieces.append(piece)
            self._changed.notify()

    def unfeed(self, piece: int) -> bool:
        """Don't, if it has not begun; whether that is so."""
        with self._changed:
            if piece in self._pieces:
                self._pieces.remove(piece)
                return True
            return False

    def close(self) -> None:
        """End it."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._program.__exit__(None, None, None)

    def join(self, seconds: float) -> None:
        """Wait for the threads of a member that was closed."""
        for thread in self._threads:
            thread.join(seconds)

    def _listen(self) -> None:
        try:
            for message in self._program.messages():
                if "fed" in message:
                    with self._changed:
                        self._credit += 1
                        self._changed.notify()
                elif self._hear is None or not self._hear(message):
                    self._inbox.put((self.host, message))
            self._inbox.put((self.host, None))
        except (HostError, InterruptedByUser) as error:
            self._inbox.put((self.host, error))
        except Exception as error:  # noqa: BLE001 (a closed channel says it in many ways)
            self._inbox.put((self.host, RemoteError(self.host, f"its program could not be heard: {error}")))
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _speak(self) -> None:
        try:
            while (order := self._next()) is not None:
                if isinstance(order, int):
                    self._send_piece(order)
                else:
                    self._program.send(order)
        except HostError:
            return  # who listens hears of it, too
        except Exception as error:  # noqa: BLE001 (as above)
            self._inbox.put((self.host, RemoteError(self.host, f"its program could not be told: {error}")))

    def _next(self) -> PushOrder | int | None:
        """What to say next, orders before pieces; None at the end of it."""
        with self._changed:
            if not self._orders and not self._pieces and not self._ended:
                self._changed.wait(ALIVE_SECONDS)
            if self._ended:
                return None
            if self._orders:
                return self._orders.popleft()
            return self._pieces.popleft() if self._pieces else {"alive": True}

    def _send_piece(self, piece: int) -> None:
        assert self._read is not None, "only who has the pieces is asked to send them"
        at = 0
        try:
            for chunk in self._read(piece):
                if not self._may_send():
                    return
                self._program.send_with({"feed": piece, "at": at, "size": len(chunk)}, chunk)
                at += len(chunk)
        except (OSError, EOFError) as error:
            self._inbox.put(("", {"refused": str(error)}))

    def _may_send(self) -> bool:
        """Wait until the host has taken enough of what it was sent, and tell it what it is to know meanwhile."""
        while True:
            with self._changed:
                if not self._credit and not self._orders and not self._ended:
                    self._changed.wait(ALIVE_SECONDS)
                if self._ended:
                    return False
                order = self._orders.popleft() if self._orders else None
                if order is None and self._credit:
                    self._credit -= 1
                    return True
            self._program.send(order or {"alive": True})
