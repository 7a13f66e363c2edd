from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from flagscale_deploy.errors import InterruptedByUser
from flagscale_deploy.transport.login_limit import LoginLimit, Slot

NEVER = threading.Event()


def test_so_many_log_in_at_an_address_and_no_more() -> None:
    limit = LoginLimit(3)
    inside, most = 0, 0
    lock = threading.Lock()

    def log_in(number: int) -> None:
        nonlocal inside, most
        place = limit.acquire("10.0.0.1", 30, NEVER)
        with lock:
            inside += 1
            most = max(most, inside)
        threading.Event().wait(0.005)
        with lock:
            inside -= 1
        place.release(logged_in=bool(number % 2))

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(log_in, range(64)))
    assert most == 3
    assert limit._addresses == {}


def test_another_address_is_not_waited_for() -> None:
    limit = LoginLimit(1)
    limit.acquire("10.0.0.1", 30, NEVER)
    limit.acquire("10.0.0.2", 0, NEVER).release()


def test_a_place_is_given_back_once() -> None:
    limit = LoginLimit(1)
    first = limit.acquire("a", 0, NEVER)
    first.release()
    second = limit.acquire("a", 0, NEVER)
    first.release()
    with pytest.raises(TimeoutError):
        limit.acquire("a", 0, NEVER)
    second.release()


def test_waiting_ends_when_nobody_has_logged_in_for_some_time_and_goes_on_while_others_do() -> None:
    clock = [0.0]
    limit = LoginLimit(1, now=lambda: clock[0])
    busy = limit.acquire("a", 10, NEVER)
    outcome: list[Slot | Exception] = []

    def wait() -> None:
        try:
            outcome.append(limit.acquire("a", 10, NEVER))
        except TimeoutError as error:
            outcome.append(error)

    waiting = threading.Thread(target=wait)
    clock[0] = 9.0
    waiting.start()
    clock[0] = 18.0  # 9 s of waiting
    busy.release(logged_in=True)
    waiting.join(10)
    (place,) = outcome
    assert isinstance(place, Slot)
    waiting = threading.Thread(target=wait)
    waiting.start()
    while not limit._addresses["a"].queue:
        threading.Event().wait(0.001)
    clock[0] = 29.0
    waiting.join(10)
    assert isinstance(outcome[1], TimeoutError)


def test_they_come_in_turn() -> None:
    limit = LoginLimit(1)
    first = limit.acquire("a", 30, NEVER)
    order: list[int] = []
    threads = []
    for number in range(5):
        thread = threading.Thread(target=lambda number=number: _pass(limit, order, number))
        thread.start()
        threads.append(thread)
        while len(limit._addresses["a"].queue) <= number:
            threading.Event().wait(0.001)
    first.release()
    for thread in threads:
        thread.join(10)
    assert order == [0, 1, 2, 3, 4]


def _pass(limit: LoginLimit, order: list[int], number: int) -> None:
    place = limit.acquire("a", 30, NEVER)
    order.append(number)
    place.release()


def test_who_waits_can_be_interrupted() -> None:
    limit = LoginLimit(1)
    limit.acquire("a", 30, NEVER)
    cancelled = threading.Event()
    threading.Timer(0.05, cancelled.set).start()
    with pytest.raises(InterruptedByUser):
        limit.acquire("a", 30, cancelled)
