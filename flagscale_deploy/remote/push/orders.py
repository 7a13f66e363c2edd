"""Read the operator's orders to a program of a push, send replies, and end the program when the operator is gone."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from typing import TYPE_CHECKING, Callable, Literal

from flagscale_deploy.remote.orders import OrderReader
from flagscale_deploy.remote.wire import send

if TYPE_CHECKING:
    from flagscale_deploy.remote.messages.push import PushOrder, PushReply

OPERATOR_TIMEOUT_SECONDS = 60.0
"""The operator sends something every few seconds; after so long without it, the operator is gone."""
POLL_SECONDS = 2.0
REPORT_SECONDS = 0.5

_sending = threading.Lock()


def reply(message: PushReply) -> None:
    """Send a message to the operator, from any thread."""
    with _sending:
        send(message)


class ByteCounter:
    """Count bytes, and report the count to the operator every half second."""

    def __init__(self, name: Literal["hashed", "received"]) -> None:
        self._name, self._count, self._reported_at = name, 0, time.monotonic()
        self._lock = threading.Lock()

    def __call__(self, count: int) -> None:
        """Add to the count."""
        with self._lock:
            self._count += count
            if time.monotonic() - self._reported_at < REPORT_SECONDS:
                return
            self._reported_at = time.monotonic()
            count = self._count
        reply({"hashed": count} if self._name == "hashed" else {"received": count})


class OrderQueue:
    """The orders as they come. This process ends when standard input does, or is silent for a minute.

    `lost` is called before that. `urgent` carries out orders that must not wait for others, as soon as they come, and
    returns whether it did.
    """

    def __init__(self, lost: Callable[[], None], urgent: Callable[[PushOrder], bool]) -> None:
        self._lost, self._urgent = lost, urgent
        self._waiting: queue.Queue[PushOrder] = queue.Queue()
        self._reader: OrderReader[PushOrder] = OrderReader()
        self._ending = threading.Lock()
        for work in (self._listen, self._watch):
            threading.Thread(target=work, daemon=True).start()

    def next(self) -> PushOrder:
        """Wait for the next order that is not urgent."""
        return self._waiting.get()

    def read_into(self, buffer: memoryview) -> None:
        """Fill a buffer with the bytes behind an order; for `urgent` to call."""
        try:
            self._reader.read_into(buffer)
        except EOFError:
            self._leave()

    def _listen(self) -> None:
        try:
            while True:
                order = self._reader.next()
                if order is None:
                    self._reader.receive()
                    if self._reader.ended:
                        self._leave()
                elif not self._urgent(order):
                    self._waiting.put(order)
        except Exception as error:  # noqa: BLE001 (an order that cannot be carried out: the operator has to learn of it)
            with contextlib.suppress(OSError), _sending:  # nobody may read replies any more
                send({"error": "%s: %s" % (type(error).__name__, error), "traceback": ""})
            self._leave()

    def _watch(self) -> None:
        while time.monotonic() - self._reader.received_at < OPERATOR_TIMEOUT_SECONDS:
            time.sleep(POLL_SECONDS)
        self._leave()

    def _leave(self) -> None:
        """End this process at once, whatever its threads do or wait for: the operator is gone."""
        with self._ending:
            try:
                self._lost()
            finally:
                os._exit(0)
