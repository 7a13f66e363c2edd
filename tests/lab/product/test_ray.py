"""Real Ray over three hosts, beside a Ray cluster of somebody else's; the engine is the stand-in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.environments.build import mounts
from tests.lab import Host, Lab
from tests.lab.product.conftest import Serve
from tests.lab.product.operator import Operator, eventually
from tests.lab.product.stand_in import StandIn, given

Write = Callable[..., Serve]
OVER_ALL: dict[str, Any] = {
    "flags": {"tensor-parallel-size": 3},
    "deploy": {"ray": "on", "timeouts": {"stop": 2, "ray": 120}},
}

OTHER_CLUSTER = """
. {env}/bin/activate
export RAY_AUTH_MODE=disabled
ray start --head --node-ip-address={address} --port=7399 --temp-dir=/tmp/other --num-cpus=1 --num-gpus=0 \
  --include-dashboard=false --disable-usage-stats >/tmp/other.log 2>&1 </dev/null
"""


@pytest.fixture(scope="module")
def lab(make_lab: Callable[..., Lab], stand_in: StandIn, node_env: Path) -> Lab:
    return make_lab(hosts=3, gpus=1, mounts=[*mounts(node_env), *stand_in.mounts])


@pytest.fixture
def operator(lab: Lab, stand_in: StandIn, node_env: Path, tmp_path: Path) -> Iterator[Operator]:
    path = f'export PATH={stand_in.command}:"$PATH"'
    sits = Operator(tmp_path, lab.inventory(tmp_path / "hosts.yaml", venv=str(node_env), before_start=path))
    yield sits
    for running in sits.started:
        running.abandon()


@pytest.fixture(scope="module")
def other_cluster(lab: Lab, node_env: Path) -> set[str]:
    """Somebody else's Ray on the head host, with the defaults of Ray where ours would have them; its pids."""
    host = lab.hosts[0]
    host.run(f"setsid bash -c '{OTHER_CLUSTER.format(env=node_env, address=host.address)}'", timeout=120)
    pids = other_processes(host)
    assert pids
    return pids


def other_processes(host: Host) -> set[str]:
    pids = host.run("grep -lz -e /tmp/other $(ls -d /proc/[0-9]*/cmdline) 2>/dev/null", check=False).stdout.split()
    running = {path.split("/")[2] for path in pids}
    return {pid for pid in running if "gcs_server" in command(host, pid) or "raylet" in command(host, pid)}


def command(host: Host, pid: str) -> str:
    return host.run(["cat", f"/proc/{pid}/cmdline"], check=False).stdout


def test_a_deployment_over_three_hosts_comes_and_goes_beside_somebody_elses_ray(
    lab: Lab, operator: Operator, serve: Write, other_cluster: set[str]
) -> None:
    served = serve(stand_in="ray", **OVER_ALL)
    operator("run", "-c", served.config)
    engine = given(lab.hosts[0], served.port)
    assert "--distributed-executor-backend=ray" in engine["argv"]
    assert engine["environ"]["RAY_ADDRESS"] == f"{lab.hosts[0].address}:6379"
    roles = {}
    for host in lab.hosts:
        state = host.directory / f"home/.flagscale-deploy/{served.name}/{host.name}/record.json"
        record = json.loads(state.read_text())
        roles[host.name] = record["roles"]
        assert record["hosts"] == ["node1", "node2", "node3"]
        assert record["gpus"] == [0]
    assert roles == {"node1": ["ray-head", "engine"], "node2": ["ray-worker"], "node3": ["ray-worker"]}

    status = operator("status", "--name", served.name, "--json").json
    assert status["state"] == "ready"
    assert status["ray"]["nodes"] == {host.address: 1.0 for host in lab.hosts}
    assert not status["ray"]["missing"]
    assert "runs already" in operator("run", "-c", served.config).out

    collected = operator.directory / "logs"
    operator("logs", "--name", served.name, "-o", collected)
    for host in lab.hosts:
        workers = [path.read_text() for path in collected.glob(f"{host.name}/ray/session_*/worker-*-*.out")]
        assert any("a worker of the stand-in" in text for text in workers), host.name
        assert list(collected.glob(f"{host.name}/ray/session_*/raylet.out"))
    assert (collected / "node2/logs/ray_worker.log").is_file()

    processes = lab.processes(served.name)
    assert {process.host for process in processes} == {"node1", "node2", "node3"}
    operator("stop", "--name", served.name)
    assert [left for left in lab.leftovers(served.name, processes) if left.kind != "directory"] == []
    assert other_processes(lab.hosts[0]) == other_cluster
    operator("cleanup", "--name", served.name)
    assert lab.leftovers(served.name, processes) == []
    assert other_processes(lab.hosts[0]) == other_cluster


def test_an_operator_killed_while_ray_starts_leaves_nothing_that_stop_does_not_find(
    lab: Lab, operator: Operator, serve: Write
) -> None:
    served = serve(stand_in="ray", **OVER_ALL)
    running = operator.start("run", "-c", served.config)
    assert eventually(lambda: {process.host for process in lab.processes(served.name)} == {"node1", "node2", "node3"})
    running.abandon()
    processes = lab.processes(served.name)
    operator("stop", "--name", served.name)
    assert [left for left in lab.leftovers(served.name, processes) if left.kind != "directory"] == []
    operator("cleanup", "--name", served.name)
    assert lab.leftovers(served.name, processes) == []


def test_ray_and_an_instance_over_all_hosts_come_back_by_themselves(
    lab: Lab, operator: Operator, serve: Write, other_cluster: set[str]
) -> None:
    """A raylet of a worker dies, then the GCS: nobody does anything."""
    restart = {"policy": "on-failure", "backoff": 0.1, "max": 20}
    served = serve(stand_in="ray,actors", flags=OVER_ALL["flags"], deploy={**OVER_ALL["deploy"], "restart": restart})
    operator("run", "-c", served.config)
    head, worker = lab.hosts[0], lab.hosts[1]

    def instance() -> Any:
        return operator("status", "--name", served.name, "--json", exits=None).json["instances"][0]

    def daemon(host: Host, name: str) -> str:
        (pid,) = [
            process.pid
            for process in lab.processes(served.name)
            if process.host == host.name and process.command.split()[0].endswith(f"/{name}")
        ]
        return str(pid)

    def is_back(pid: int, restarts: int) -> bool:
        if given(head, served.port)["pid"] == pid:  # `status` is asked later: it takes a second of a core
            return False
        now = instance()
        return bool(now["state"] == "ready" and now["restarts"] > restarts)

    for host, name in ((worker, "raylet"), (head, "gcs_server")):
        before, restarts = given(head, served.port)["pid"], instance()["restarts"]
        host.run(["kill", "-9", daemon(host, name)])
        assert eventually(partial(is_back, before, restarts), within=240, every=3.0), instance()

    def is_told(host: Host, server: str) -> bool:
        kept = host.directory / f"home/.flagscale-deploy/{served.name}/{host.name}/history.jsonl"
        history = map(json.loads, kept.read_text().splitlines())
        events = [event for event in history if event["server"] == server and event["event"] != "ready"]
        return (events[0]["event"], events[-1]["event"]) == ("restarting", "restored")

    for host, server in ((worker, "ray-worker"), (head, "ray-head"), (head, "model0/0")):
        assert eventually(partial(is_told, host, server), every=0.5), server
    assert operator("status", "--name", served.name, "--json").json["state"] == "ready"
    assert other_processes(head) == other_cluster

    processes = lab.processes(served.name)
    operator("stop", "--name", served.name)
    assert [left for left in lab.leftovers(served.name, processes) if left.kind != "directory"] == []
    operator("cleanup", "--name", served.name)
    assert lab.leftovers(served.name, processes) == []
    assert other_processes(head) == other_cluster
