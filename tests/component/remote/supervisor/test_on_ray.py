"""The wait of an instance for Ray, whose node on this host has a supervisor of its own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flagscale_deploy.remote.deployment import restart_permits
from flagscale_deploy.remote.supervisor.health import Lifetime
from flagscale_deploy.remote.supervisor.on_ray import RayletWatcher, Waiting, node_state
from flagscale_deploy.remote.system.proc import MARKER
from tests.component.remote.living import Home, Household, birth, household, wait_until

RAYLET = ["bash", "-c", "echo up; exec -a raylet sleep 600"]
WHOLE = """echo '{"nodes": {}, "missing": [], "available": {"GPU": 2.0}}'"""


@pytest.fixture
def people() -> Iterator[Household]:
    with household() as living:
        yield living


@pytest.fixture
def ray(home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv(MARKER, f"{home.deployment}/r1")
    (home.state / "scripts/ray_nodes.sh").write_text(WHOLE)
    return home


def report(home: Home, state: str, *, healthy: bool = False, pid: int | None = None) -> None:
    """Write what the supervisor of the node says; `pid` is the supervisor's."""
    content: Any = {"state": state, "healthy": healthy, "why": "lost its raylet; gave up after 5 restarts"}
    restart_permits.Files(home.state, "r1", "ray_worker.sh").write(content)
    entry = {"role": "ray-worker", "script": "ray_worker.sh", "log": "/l", **birth(pid or os.getpid())}
    home.record(host=home.host)
    home.record(processes=[entry])


def waiting(home: Home) -> Waiting:
    return Waiting(home.state, "r1", 2, 0.0)


def never(_seconds: float) -> None:
    raise AssertionError("it should not wait")


def silent(_text: str) -> None:
    """Log nothing."""


def raylet(people: Household, home: Home) -> int:
    """Start what is called a raylet; bash says so just before it becomes one."""
    pid = people.start(RAYLET, f"{home.deployment}/r1")[0]
    wait_until(lambda: Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"raylet"))
    return pid


def test_it_gives_up_where_the_node_was_given_up_with_its_reason(ray: Home) -> None:
    report(ray, "gave up")
    problem = waiting(ray).until_whole(lambda: True, never, silent)
    assert problem == "Ray does not run on this host: lost its raylet; gave up after 5 restarts"


def test_the_time_while_the_node_is_restarted_does_not_count(ray: Home, people: Household) -> None:
    report(ray, "restarting")
    steps: list[Callable[[], object]] = [
        lambda: report(ray, "restarting"),
        lambda: report(ray, "running"),
        lambda: raylet(people, ray),
        lambda: report(ray, "running", healthy=True),
    ]
    logged: list[str] = []

    def step(_seconds: float) -> None:
        steps.pop(0)()

    assert waiting(ray).until_whole(lambda: True, step, logged.append) == ""
    assert (steps, logged) == ([], ["waiting: Ray is being restarted on this host"])


def test_without_a_supervisor_of_the_node_it_waits_no_longer_than_its_time(ray: Home, people: Household) -> None:
    report(ray, "restarting", pid=people.start(["sleep", "600"], expect=0)[0])
    people.end()
    assert node_state(ray.state, "r1") == {}
    problem = waiting(ray).until_whole(lambda: True, never, silent)
    assert problem == "Ray does not run on this host, after 0 s"


def test_it_waits_for_other_nodes_no_longer_than_its_time(ray: Home, people: Household) -> None:
    (ray.state / "scripts/ray_nodes.sh").write_text(WHOLE.replace("[]", '["10.0.0.2: no node"]'))
    raylet(people, ray)
    report(ray, "running", healthy=True)
    problem = waiting(ray).until_whole(lambda: True, never, silent)
    assert problem == "Ray lacks 10.0.0.2: no node, after 0 s"


def test_with_spares_it_goes_on_without_a_node_that_stays_away(ray: Home, people: Household) -> None:
    (ray.state / "scripts/ray_nodes.sh").write_text(WHOLE.replace("[]", '["10.0.0.2: no node"]'))
    raylet(people, ray)
    report(ray, "running", healthy=True)
    logged: list[str] = []
    spared = Waiting(ray.state, "r1", 2, 60.0, 0.2)
    assert spared.until_whole(lambda: True, lambda _: time.sleep(0.2), logged.append) == ""
    assert logged == ["waiting: Ray lacks 10.0.0.2: no node"], "for a while the node is waited for"
    short = Waiting(ray.state, "r1", 3, 0.0, 0.0)
    assert short.until_whole(lambda: True, never, silent).startswith("Ray has 2 of 3 GPUs free")


def test_a_stop_ends_the_wait(ray: Home) -> None:
    assert waiting(ray).until_whole(lambda: False, never, silent) == ""


def test_an_idle_engine_is_ended_when_the_raylet_of_its_host_has_ended(ray: Home, people: Household) -> None:
    lifetime, watcher = object.__new__(Lifetime), RayletWatcher()
    watcher.start(lifetime)
    assert watcher.problem() == "", "there is none"
    pid = raylet(people, ray)
    watcher.start(lifetime)
    assert watcher.problem() == ""
    os.kill(pid, signal.SIGKILL)
    people.reap(pid)
    assert watcher.problem() == "lost Ray's raylet on this host"
    watcher.end()
    assert watcher.problem() == ""
