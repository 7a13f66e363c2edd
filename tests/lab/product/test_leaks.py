"""What the product's functions leave in the operator's own process: no thread, no descriptor, no child."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from flagscale_deploy import api
from flagscale_deploy.api.request import Options, Request, load_request
from flagscale_deploy.deploy.bring_up import RunFailedError
from flagscale_deploy.errors import DeployError, HostsUnreachableError
from tests.lab import Lab
from tests.lab.product.conftest import Serve
from tests.lab.product.operator import Operator, eventually

Write = Callable[..., Serve]


class Held(NamedTuple):
    """What this process holds. A pipe or socket has a number of its own that is of no account."""

    descriptors: list[str]
    threads: list[str]
    children: list[str]


def held() -> Held:
    descriptors = []
    for path in Path("/proc/self/fd").iterdir():
        try:
            descriptors.append(os.readlink(path).partition("[")[0])
        except OSError:  # the one that the directory was read through
            continue
    children = [path.read_text() for path in Path("/proc/self/task").glob("*/children")]
    return Held(
        sorted(descriptors), sorted(thread.name for thread in threading.enumerate()), " ".join(children).split()
    )


@pytest.fixture
def nothing_leaks() -> Iterator[None]:
    before = held()
    yield
    assert eventually(lambda: held() == before), f"before: {before}\nafter:  {held()}"


def request_for(operator: Operator, served: Serve) -> Request:
    """With the operator's files, in this process."""
    options = Options(inventory=str(operator.inventory), config=str(served.config))
    return load_request(options, environ={"HOME": str(operator.directory)})


def test_a_deployment_from_its_plan_to_its_cleanup(
    lab: Lab, operator: Operator, serve: Write, nothing_leaks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(operator.directory)
    request = request_for(operator, serve())
    assert api.check(request).exit_code == 0
    assert api.plan(request).instances
    api.run(request)
    assert api.status(request).state == "ready"
    assert api.call(request, [{"role": "user", "content": "hi"}])
    lines: list[str] = []
    api.follow(request, lambda *line: lines.append(line[2]), api.LineSelection(tail=10))
    assert lines
    api.collect(request, operator.directory / "logs")
    assert api.stop(request).exit_code == 0
    assert api.cleanup(request).exit_code == 0


def test_runs_that_fail(
    lab: Lab, operator: Operator, serve: Write, nothing_leaks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(operator.directory)
    dying = serve(stand_in="dies", envs={"STAND_IN_ERROR": "ValueError: no"})
    with pytest.raises(RunFailedError):
        api.run(request_for(operator, dying))
    with pytest.raises(RunFailedError):
        api.run(request_for(operator, serve(stand_in="hangs", deploy={"ray": "off", "timeouts": {"ready": 1}})))


def test_hosts_that_do_not_answer_or_do_not_let_us_in(
    lab: Lab, operator: Operator, serve: Write, nothing_leaks: None, tmp_path: Path
) -> None:
    served = serve(deploy={"ray": "off", "timeouts": {"connect": 1}})
    lab.hosts[1].cut()
    try:
        with pytest.raises(HostsUnreachableError):
            api.plan(request_for(operator, served))
    finally:
        lab.hosts[1].join()
    for old, new in (("ansible_user: root", "ansible_user: nobody"), (str(lab.known_hosts), "/dev/null")):
        original = operator.inventory.read_text()
        operator.inventory.write_text(original.replace(old, new))
        with pytest.raises(DeployError):
            api.run(request_for(operator, served))
        operator.inventory.write_text(original)
