"""A group is ready when its driver answers; its followers are watched until then, and the loss of one ends the wait."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import pytest

from flagscale_deploy.deploy import readiness
from flagscale_deploy.deploy.readiness import InstanceFailedError, wait_ready
from flagscale_deploy.errors import DeployError, UnreachableError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.transport.base import Connection
from tests.fakes import FakeFleet, Output
from tests.unit.deploy.given import HOSTS, Heard, answering, started
from tests.unit.deploy.test_readiness import LIMITS, becomes_ready
from tests.unit.plan.given import inventory, model, planned, spec

GROUP = planned(inventory(*HOSTS), spec(model(tp=16, port=4567), executor="mp"))
CUT = UnreachableError("gpu02", "the SSH connection was lost")


class Unreachable(FakeFleet):
    """Hosts that are lost for good once their connection was."""

    def fresh_connection(self, host: str) -> Connection:
        raise UnreachableError(host, "no answer")


class Group:
    """Two hosts: the driver's watch and the follower's give what they are told to."""

    def __init__(self, driver: Any, follower: Any, fleet: type[FakeFleet] = FakeFleet) -> None:
        self._driver, self._follower = driver, follower
        self.fleet = fleet(answering(watch=self._watch), HOSTS)
        self.heard = Heard()

    def wait(self) -> dict[str, float]:
        ready = wait_ready(GROUP, self.fleet, started(GROUP), LIMITS, self.heard)
        return {name: instance.seconds for name, instance in ready.items()}

    def fails(self) -> DeployError:
        with pytest.raises(DeployError) as raised:
            self.wait()
        return raised.value

    def loads(self, host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        """Give nothing until the operator has enough."""
        end = time.monotonic() + 120
        (watching,) = (run for run in self.fleet.connections[host.name].running if run.module == "watch")
        while not watching.input_ended:
            assert time.monotonic() < end, "its watch was not ended"
            yield None

    def _watch(self, host: Host, args: dict[str, Any]) -> Iterable[Output]:
        watch = self._follower if args["url"] == "" else self._driver
        return (watch or self.loads)(host, args)


def test_the_driver_makes_the_group_ready_and_ends_the_watch_of_its_follower() -> None:
    group = Group(becomes_ready, None)
    assert list(group.wait()) == ["qwen/0"]
    assert [(event.host, event.text) for event in group.heard.of("serve", "done")] == [("gpu01", "qwen/0: ready")]
    follower = next(call for call in group.fleet.sent("watch") if call.host == "gpu02")
    assert (follower.args["url"], follower.args["log"]) == ("", "/state/logs/vllm_serve_qwen_0_rank1.sh.log")


def test_a_follower_that_ends_ends_the_wait_and_rank_and_host_are_named() -> None:
    def ends(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield {"lines": ["Worker proc VllmWorker-1 died unexpectedly (exit code: None), shutting down executor."]}
        yield {"dead": True}

    began = time.monotonic()
    error = Group(None, ends).fails()
    assert time.monotonic() - began < 60
    assert isinstance(error, InstanceFailedError)
    assert (error.host, error.exit_code) == ("gpu02", 5)
    assert "qwen/0 rank 1 ended" in str(error)


def test_a_followers_host_that_does_not_come_back_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "FOLLOWER_LOST_SECONDS", 0.3)
    error = Group(None, lambda *_: [{"lines": ["INFO loading"]}, CUT], Unreachable).fails()
    assert (type(error), error.exit_code) == (UnreachableError, 3)
    assert "gpu02" in str(error)
    assert "not back after 0.3 s" in str(error)


def test_a_follower_whose_connection_comes_back_is_watched_on() -> None:
    watches = iter([[CUT], [{"dead": True}]])
    error = Group(None, lambda _host, _args: next(watches)).fails()
    assert isinstance(error, InstanceFailedError)
    assert "qwen/0 rank 1 ended" in str(error)
