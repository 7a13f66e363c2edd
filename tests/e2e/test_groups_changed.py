"""One group over two real hosts is updated and rolled back, over Ray, which stays up, and without it.

`make faults` runs them.
"""

from __future__ import annotations

import json
import urllib.request

import pytest

from tests.e2e.groups import PORT, READY_SECONDS, Groups

pytestmark = [pytest.mark.e2e, pytest.mark.lab, pytest.mark.timeout(900)]

UNASKED = ("--skip-check", "engine-arguments")
QUICK = (*UNASKED, "--allow-downtime", "--watch-for", "1s")


def daemons(groups: Groups, name: str) -> set[tuple[str, int]]:
    """Return host and pid of Ray's daemons."""
    return {
        (process.host, process.pid)
        for process in groups.lab.processes(name)
        if process.command.split()[0].endswith(("/raylet", "/gcs_server"))
    }


def longest(groups: Groups) -> int:
    """Return what the server says of its longest context."""
    with urllib.request.urlopen(f"http://{groups.head.address}:{PORT}/v1/models", timeout=60) as reply:
        return int(json.load(reply)["data"][0]["max_model_len"])


@pytest.mark.parametrize("executor", ["ray", "mp"])
def test_a_group_over_two_hosts_is_updated_and_rolled_back(groups: Groups, executor: str) -> None:
    name, flags = f"changed-{executor}", {"tensor-parallel-size": 2}
    words = (f"deploy.executor={executor}", "deploy.restart=on-failure")
    groups.run(name, flags, words=(*words, *UNASKED))
    ray = daemons(groups, name)
    assert len(ray) == (3 if executor == "ray" else 0)
    before = set(groups.lab.processes(name))

    longer = (*groups.write(name, {**flags, "max-model-len": 256}), *words)
    groups.operator.start("update", *longer, *QUICK).end(0, within=READY_SECONDS)
    assert longest(groups) == 256
    assert daemons(groups, name) == ray
    engines = [process for process in before if "VLLM::" in process.command]
    assert engines
    assert not set(engines) & set(groups.lab.processes(name))
    assert groups.ask_often(2) == [4, 4]

    groups.operator.start("rollback", "--name", name, *QUICK).end(0, within=READY_SECONDS)
    assert (longest(groups), daemons(groups, name)) == (512, ray)
    assert groups.ask_often(2) == [4, 4]
    assert groups.stop(name) == []
