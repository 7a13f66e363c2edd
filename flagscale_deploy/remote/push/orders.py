"""What the operator tells a program of a push, line by line, and how it hears that nobody tells it anything more."""

from __future__ import annotations

import os
import queue
import threading
import time
from typing import TYPE_CHECKING, Callable, Literal

from flagscale_deploy.remote.requests import Requests
from flagscale_deploy.remote.wire import send

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.push import PushOrder, PushReply

SILENCE_SECONDS = 60.0
"""The operator says something every few seconds; one that has not for so long is gone."""
LOOK_SECONDS = 2.0
TOLD_SECONDS = 0.5

_speaking = threading.Lock()


def tell(message: PushReply) -> None:
    """Send a message to the operator, from any thread."""
    with _speaking:
        send(message)


class Counter:
    """Bytes, told to the operator now and then under a name."""

    def __init__(self, name: Literal["hashed", "received"]) -> None:
        self._name, self._count, self._told = name, 0, time.monotonic()
        self._lock = threading.Lock()

    def __call__(self, count: int) -> None:
        with self._lock:
            self._count += count
            if time.monotonic() - self._told < TOLD_SECONDS:
                return
            self._told = time.monotonic()
            count = self._count
        tell({"hashed": count} if self._name == "hashed" else {"received": count})


class Orders:
    """Orders as they come. `lost` is called when standard input ends, or is silent for a minute; then all ends.

    Bytes may follow an order: `bytes_of(order)` reads them, into a buffer, before the next order is read.
    """

    def __init__(self, lost: Callable[[], None], urgent: Callable[[PushOrder], bool]) -> None:
        self._lost, self._urgent = lost, urgent
        self._waiting: queue.Queue[PushOrder] = queue.Queue()
        self._requests: Requests[PushOrder] = Requests()
        self._ending = threading.Lock()
        for work in (self._listen, self._watch):
            threading.Thread(target=work, daemon=True).start()

    def next(self) -> PushOrder:
        """The next order that is not urgent: those are carried out at once, by whoever hears them."""
        return self._waiting.get()

    def read_into(self, buffer: memoryview) -> None:
        """The bytes that follow an order; for `urgent` to call."""
        try:
            self._requests.read_into(buffer)
        except EOFError:
            self._leave()

    def _listen(self) -> None:
        while True:
            order = self._requests.next()
            if order is None:
                self._requests.receive()
                if self._requests.ended:
                    self._leave()
            elif not self._urgent(order):
                self._waiting.put(order)

    def _watch(self) -> None:
        while time.monotonic() - self._requests.received_at < SILENCE_SECONDS:
            time.sleep(LOOK_SECONDS)
        self._leave()

    def _leave(self) -> None:
        """Nobody listens: end, whatever is being done, and whatever a thread waits for in the kernel."""
        with self._ending:
            try:
                self._lost()
            finally:
                os._exit(0)
