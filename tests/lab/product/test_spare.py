"""`deploy.restart.spare`: a group whose host is lost serves again on a third one, and `stop` ends all of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.environments.build import mounts
from tests.lab import Host, Lab
from tests.lab.product.conftest import Serve
from tests.lab.product.operator import Operator, eventually
from tests.lab.product.stand_in import StandIn, given, is_alive, is_started, make_environment

Write = Callable[..., Serve]
FOLLOWER = 0
"""What stands for the port of a follower, which has none."""
DEPLOY = {
    "executor": "mp",
    "restart": {"policy": "on-failure", "backoff": 0.1, "lost": 3, "spare": True},
    "timeouts": {"connect": 4, "ready": 20, "stop": 2},
}


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    """Provide an environment whose vLLM says that it is new enough for groups."""
    place = tmp_path_factory.mktemp("spare")
    return StandIn(make_environment(place / "environment", vllm="0.32.0"), place)


@pytest.fixture(scope="module")
def lab(make_lab: Callable[..., Lab], stand_in: StandIn) -> Lab:
    return make_lab(hosts=3, gpus=2, mounts=mounts(stand_in.environment))


def log_of(host: Host, served: Serve, script: str) -> str:
    place: Path = host.directory / f"home/.flagscale-deploy/{served.name}/{host.name}/logs"
    return (place / f"{script}.log").read_text()


def ranks_of(instance: Any) -> list[tuple[int, str, str]]:
    return [(rank["number"], rank["host"], rank["state"]) for rank in (*instance["ranks"][1:], *instance["spares"])]


def test_a_group_serves_again_without_the_host_that_is_cut_off_which_is_the_spare_when_it_is_back(
    lab: Lab, operator: Operator, serve: Write
) -> None:
    served = serve(flags={"tensor-parallel-size": 4}, deploy=DEPLOY)
    head, lost, third = lab.hosts
    operator("run", "-c", served.config)
    assert "Nothing would change." in operator("plan", "-c", served.config).out
    (instance,) = operator("status", "--name", served.name, "--json").json["instances"]
    assert ranks_of(instance) == [(1, lost.name, "running"), (2, third.name, "spare")]
    first, replaced = given(head, served.port), given(lost, FOLLOWER)
    assert not is_started(third, FOLLOWER)

    lost.cut()
    try:
        assert eventually(lambda: is_started(third, FOLLOWER), every=0.5), log_of(head, served, "vllm_serve_model0_0")
        assert "--node-rank=1" in given(third, FOLLOWER)["argv"]
        assert given(head, served.port)["pid"] != first["pid"]
        assert not is_alive(lost, replaced["pid"]), "it had ended before its rank began elsewhere"
        status = operator("status", "--name", served.name, "--json", exits=3).json
        (instance,) = status["instances"]
        assert (instance["state"], instance["restarts"]) == ("ready", 1)
        assert instance["problem"] == f"rank 1 is on {third.name} instead of {lost.name}"
        assert instance["hosts"] == [head.name, third.name]
        assert {host["host"]: host["gpus"] for host in status["hosts"]}[third.name] == [0, 1]
    finally:
        lost.join()

    def is_back() -> bool:
        (now,) = operator("status", "--name", served.name, "--json", exits=None).json["instances"]
        return ranks_of(now) == [(1, third.name, "running"), (1, lost.name, "spare")]

    assert eventually(is_back)
    assert operator("call", "hello", "--name", served.name).out == "you said: hello\n"
    processes = lab.processes(served.name)
    assert {process.host for process in processes} == {host.name for host in lab.hosts}
    operator("stop", "--name", served.name)
    assert [left for left in lab.leftovers(served.name, processes) if left.kind != "directory"] == []
