"""Operators who are interrupted, who are killed, and what a later command can still do about it."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable

import pytest

from tests.lab import Lab
from tests.lab.product.conftest import Serve
from tests.lab.product.operator import Operator, Running, eventually
from tests.lab.product.stand_in import is_started

Write = Callable[..., Serve]


def loading(lab: Lab, operator: Operator, served: Serve) -> Running:
    """Return a run whose engine has started and does not get ready."""
    running = operator.start("run", "-c", served.config)
    assert eventually(lambda: is_started(lab.hosts[0], served.port)), running.said
    return running


@pytest.mark.parametrize(("number", "times"), [(signal.SIGINT, 1), (signal.SIGTERM, 2), (signal.SIGHUP, 3)])
def test_an_interrupted_run_takes_down_what_it_started_and_says_so(
    lab: Lab, operator: Operator, serve: Write, number: signal.Signals, times: int
) -> None:
    """`timeout` sends SIGTERM twice, a terminal that closes and its shell SIGHUP."""
    served = serve(stand_in="hangs")
    running = loading(lab, operator, served)
    processes = lab.processes(served.name)
    for _ in range(times):
        running.send(number)
    ended = running.end(exits=130)
    assert "interrupted" in ended.err
    assert re.search(r"node1: 1 process ended, none left", ended.err)
    assert processes
    assert [left for left in lab.leftovers(served.name, processes) if left.kind != "directory"] == []


def test_a_run_that_is_interrupted_again_while_it_takes_down_still_takes_down(
    lab: Lab, operator: Operator, serve: Write
) -> None:
    served = serve(stand_in="hangs,stubborn", deploy={"ray": "off", "timeouts": {"stop": 1}})
    running = loading(lab, operator, served)
    running.send(signal.SIGINT)
    running.wait_for("SIGTERM to 1 process")
    running.send(signal.SIGINT)
    running.end(exits=130)
    assert eventually(lambda: lab.processes(served.name) == [])


def test_what_a_killed_operator_left_is_stopped_and_cleaned_by_another(
    lab: Lab, operator: Operator, serve: Write
) -> None:
    served = serve(stand_in="hangs,forks")
    loading(lab, operator, served).abandon()
    processes = lab.processes(served.name)
    assert len(processes) >= 3
    operator("stop", "--name", served.name)
    assert [left for left in lab.leftovers(served.name, processes) if left.kind != "directory"] == []
    operator("cleanup", "--name", served.name)
    assert lab.leftovers(served.name, processes) == []


def test_the_lock_of_a_killed_operator_holds_up_nobody(lab: Lab, operator: Operator, serve: Write) -> None:
    served = serve(stand_in="hangs")
    loading(lab, operator, served).abandon()
    refused = operator("run", "-c", served.config, exits=4)
    assert "it runs already, but is starting" in refused.err
    operator("cleanup", "--name", served.name)
    assert lab.leftovers(served.name) == []
