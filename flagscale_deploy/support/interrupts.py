"""Interrupt a command by SIGINT, SIGTERM or SIGHUP: once for signals that come together, and not within some blocks."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TOGETHER_SECONDS = 1.0
"""Signals at a shorter distance have one cause: `timeout` sends two, a terminal that closes and its shell three."""


class Interrupt:
    """What is known of interrupts during a block that holds them back."""

    came = False


_held: list[Interrupt] = []
_last = -math.inf


def catch() -> None:
    """Make the signals interrupt the main thread; those that are ignored stay so (`nohup` ignores SIGHUP)."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


@contextmanager
def held_back() -> Iterator[Interrupt]:
    """Hold interrupts back during the block, whose value tells whether one came; raise KeyboardInterrupt at its end.

    An inner block leaves them to the outer one. Threads other than the main one get none.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    by_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    _held.append(interrupt)
    try:
        if by_default:  # a program that calls the API
            signal.signal(signal.SIGINT, _interrupt)
        yield interrupt
    finally:
        if by_default:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        _held.remove(interrupt)
    if interrupt.came:
        raise KeyboardInterrupt


def _interrupt(_number: int, _frame: object) -> None:
    global _last
    before, _last = _last, time.monotonic()
    if _last - before < TOGETHER_SECONDS:
        return
    if _held:
        _held[0].came = True
    else:
        raise KeyboardInterrupt
