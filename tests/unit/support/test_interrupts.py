"""What interrupts a command, and what an interrupt waits for."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest

from flagscale_deploy.support import interrupts
from flagscale_deploy.support.interrupts import SIGNALS, held_back


@pytest.fixture(autouse=True)
def caught() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    interrupts.catch()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(*numbers: signal.Signals) -> None:
    for number in numbers:
        signal.raise_signal(number)


@pytest.mark.parametrize("number", SIGNALS)
def test_each_of_the_signals_interrupts(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt):
        send(number)


def test_signals_that_come_together_are_one_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGHUP)
    send(signal.SIGHUP, signal.SIGTERM, signal.SIGHUP)
    monkeypatch.setattr(interrupts, "TOGETHER_SECONDS", 0.01)
    time.sleep(0.02)
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)


def test_a_signal_that_was_ignored_stays_so() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupts.catch()
    send(signal.SIGHUP)


@pytest.mark.parametrize("number", SIGNALS)
def test_an_interrupt_waits_for_the_end_of_the_outermost_block(number: signal.Signals) -> None:
    done = []

    def act() -> None:
        with held_back() as outer:
            with held_back() as inner:
                send(number)
                done.append("inner")
            done.append("outer")
            assert (inner.came, outer.came) == (False, True)

    with pytest.raises(KeyboardInterrupt):
        act()
    assert done == ["inner", "outer"]


def test_an_error_of_the_block_is_not_replaced() -> None:
    def act() -> None:
        with held_back():
            send(signal.SIGINT)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        act()


def test_programs_that_keep_the_default_handler_are_held_back_too() -> None:
    def act() -> None:
        with held_back() as interrupt:
            send(signal.SIGINT)
            assert interrupt.came

    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        act()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_hold_nothing_back() -> None:
    came = []

    def block() -> None:
        with held_back() as interrupt:
            came.append(interrupt.came)

    thread = threading.Thread(target=block)
    thread.start()
    thread.join(10)
    assert came == [False]
