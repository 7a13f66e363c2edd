"""Real Ray over three hosts, beside a Ray cluster of somebody else's; the engine is the stand-in."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.lab import Host, Lab
from tests.lab.product import cron
from tests.lab.product.conftest import Serve
from tests.lab.product.operator import Operator, eventually
from tests.lab.product.stand_in import given, is_started

Write = Callable[..., Serve]
ALL = os.environ.get("FSD_FAULTS") == "all"
OVER_ALL: dict[str, Any] = {
    "flags": {"tensor-parallel-size": 3},
    "deploy": {"ray": "on", "timeouts": {"stop": 2, "ray": 360, "drain": 1}},
}

OTHER_CLUSTER = """
. {env}/bin/activate
export RAY_AUTH_MODE=disabled
ray start --head --node-ip-address={address} --port=7399 --temp-dir=/tmp/other --num-cpus=1 --num-gpus=0 \
  --include-dashboard=false --disable-usage-stats >/tmp/other.log 2>&1 </dev/null
"""

QUICK = ("--watch-for", "0s", "--allow-downtime", "--skip-check", "engine-arguments")

RUN_SECONDS = 400.0
"""Three nodes of Ray start one after the other where the cores are busy: 34 s at load 10."""


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
    operator.start("run", "-c", served.config).end(0, within=RUN_SECONDS)
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
    change = operator("plan", "-c", served.config, "--json").json["difference"]
    assert (change["ray"], [server["reasons"] for server in change["servers"]]) == ([], [[]])
    assert "runs already" in operator("run", "-c", served.config).out

    collected = operator.directory / "logs"
    operator("logs", "--name", served.name, "-o", collected)
    for host in lab.hosts:
        workers = [path.read_text() for path in collected.glob(f"{host.name}/ray/session_*/worker-*-*.out")]
        assert any("a worker of the stand-in" in text for text in workers), host.name
        assert list(collected.glob(f"{host.name}/ray/session_*/raylet.out"))
    assert (collected / "node2/logs/ray_worker.log").is_file()

    assert_a_node_leaves_and_joins_while_rays_others_go_on(lab, operator, served)

    processes = lab.processes(served.name)
    assert {process.host for process in processes} == {"node1", "node2", "node3"}
    operator("stop", "--name", served.name)
    assert [left for left in lab.leftovers(served.name, processes) if left.kind != "directory"] == []
    assert other_processes(lab.hosts[0]) == other_cluster
    operator("cleanup", "--name", served.name)
    assert lab.leftovers(served.name, processes) == []
    assert other_processes(lab.hosts[0]) == other_cluster


def assert_a_node_leaves_and_joins_while_rays_others_go_on(lab: Lab, operator: Operator, served: Serve) -> None:
    """Take a host out and back. The stand-in starts with a task on each node that Ray counts, gone or not."""
    before, third = daemons(lab, served.name), lab.hosts[2]
    fewer = (*QUICK, "-c", served.config, "--without", third.name, "model_args.model0.tensor-parallel-size=2")
    left = operator("update", *fewer, "--json").json
    assert [node["name"] for node in left["difference"]["nodes"]] == ["Ray on node3"]
    assert daemons(lab, served.name) == {daemon for daemon in before if daemon[0] != third.name}
    assert [process for process in lab.processes(served.name) if process.host == third.name] == []
    status = operator("status", "--name", served.name, "--json").json
    assert status["state"] == "ready"
    assert status["ray"]["nodes"] == {host.address: 1.0 for host in lab.hosts[:2]}

    back = operator("rollback", *QUICK, "--name", served.name)
    assert "Ray on node3: starting" in back.said
    status = operator("status", "--name", served.name, "--json").json
    assert (status["state"], status["ray"]["missing"]) == ("ready", [])
    assert status["ray"]["nodes"] == {host.address: 1.0 for host in lab.hosts}
    assert daemons(lab, served.name) >= {daemon for daemon in before if daemon[0] != third.name}


def daemons(lab: Lab, name: str) -> set[tuple[str, int]]:
    """Return host and pid of Ray's daemons."""
    return {
        (process.host, process.pid)
        for process in lab.processes(name)
        if process.command.split()[0].endswith(("/raylet", "/gcs_server"))
    }


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


def test_ray_and_an_instance_over_all_hosts_come_back_after_reboots(
    lab: Lab, operator: Operator, serve: Write, other_cluster: set[str]
) -> None:
    """A worker's host is powered off and on, then the head's: nobody does anything.

    `FSD_FAULTS=all` also kills a worker's raylet and the GCS.
    """
    restart = {"policy": "on-failure", "backoff": 0.1, "max": 20, "boot": True}
    served = serve(stand_in="ray,actors", flags=OVER_ALL["flags"], deploy={**OVER_ALL["deploy"], "restart": restart})
    for host in lab.hosts:
        cron.install(host)
    operator.start("run", "-c", served.config).end(0, within=RUN_SECONDS)

    def is_another(boot: str, pid: int) -> bool:
        """Return whether the head's engine is not the one of this pid in this boot any more."""
        head = lab.hosts[0]
        return is_started(head, served.port) and (boot_id(head), given(head, served.port)["pid"]) != (boot, pid)

    def is_ready() -> bool:
        return bool(operator("status", "--name", served.name, "--json", exits=None).json["state"] == "ready")

    for index, restarts in ((1, 1), (0, 2)):
        before = boot_id(lab.hosts[0]), int(given(lab.hosts[0], served.port)["pid"])
        if index == 0:
            assert other_processes(lab.hosts[0]) == other_cluster, "what was restarted so far was ours"
        lab.hosts[index].kill()
        cron.boot(lab.power_on(index))
        assert eventually(partial(is_another, *before), within=240, every=1.0), index
        assert eventually(is_ready, within=240, every=2.0), index
        (instance,) = operator("status", "--name", served.name, "--json").json["instances"]
        assert instance["restarts"] == restarts

    def events(host: Host, server: str) -> list[tuple[str, str]]:
        kept = host.directory / f"home/.flagscale-deploy/{served.name}/{host.name}/history.jsonl"
        noted = [event for event in map(json.loads, kept.read_text().splitlines()) if event["server"] == server]
        return [(event["event"], event["reason"]) for event in noted if event["event"] != "ready"]

    def in_a_row(host: Host) -> int:
        (state,) = (host.directory / f"home/.flagscale-deploy/{served.name}/{host.name}").glob(
            "restart/*/ray_worker.json"
        )
        return int(json.loads(state.read_text())["in_a_row"])

    head, worker, third = lab.hosts
    rebooted = [("restarting", "its host was rebooted"), ("restored", "its host was rebooted")]
    assert events(head, "ray-head") == rebooted
    assert events(worker, "ray-worker")[:2] == rebooted
    assert events(head, "model0/0")[-2:] == rebooted
    assert events(third, "ray-worker")[-1][0] == "restored", "its raylet left the head that was gone"
    assert in_a_row(third) == 0, "which is no restart of its own"

    def daemon(host: Host, name: str) -> str:
        (pid,) = [
            process.pid
            for process in lab.processes(served.name)
            if process.host == host.name and process.command.split()[0].endswith(f"/{name}")
        ]
        return str(pid)

    for host, name in ((worker, "raylet"), (head, "gcs_server")) if ALL else ():
        before = boot_id(head), int(given(head, served.port)["pid"])
        host.run(["kill", "-9", daemon(host, name)])
        assert eventually(partial(is_another, *before), within=240, every=1.0), name
        assert eventually(is_ready, within=240, every=2.0), name
        assert in_a_row(worker) == (1 if name == "raylet" else 0), "the count begins anew with another head"

    processes = lab.processes(served.name)
    operator("cleanup", "--name", served.name)
    assert lab.leftovers(served.name, processes) == []
    assert [cron.kept(host).exists() for host in lab.hosts] == [False] * 3


def boot_id(host: Host) -> str:
    return host.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout
