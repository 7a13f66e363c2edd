"""The main job on two real hosts: SSH, Ray with tokens, vLLM with tensor parallel size 2, everything by command line.

One deployment goes through its whole life, in the order of the tests: each fixture is a step that builds on the one
before it, so any test can also run by itself.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import tiny
from tests.e2e.sight import Sight, look_at
from tests.environments import build
from tests.lab import Host, Lab
from tests.lab.product.operator import Operator, Result, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.lab, pytest.mark.timeout(900)]

NAME = "two-hosts"
PORT = 4567
READY_SECONDS = 600.0

OTHERS = "/tmp/others"
OTHER_RAY_PORT = 7379
OTHER_RAY_PORTS = (OTHER_RAY_PORT, 7380, 7381)
"""Of its head, agent and client server: the last ones are opened some time after `ray start` has returned."""
OTHER_RAY_FLAGS = (
    "--num-cpus=0 --num-gpus=0 --include-dashboard=false --disable-usage-stats --dashboard-agent-listen-port=7380 "
    f"--ray-client-server-port=7381 --min-worker-port=7400 --max-worker-port=7499 --temp-dir={OTHERS}/ray"
)

CACHES = re.compile(r"/root/\.(cache|config)(/vllm(/.*)?)?")
"""What vLLM itself keeps in a home, as it does without us."""

CONNECT = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False); print(ray.nodes())"
WORKER_LOG = re.compile(r"worker-[0-9a-f]+-[0-9a-f]+-\d+\.(out|err)")


@dataclass
class Cluster:
    """Two hosts with a GPU each, the operator, and what was on the hosts before."""

    lab: Lab
    operator: Operator
    config: Path
    node_env: Path
    prune: list[str]
    before: dict[str, Sight]
    files_before: dict[str, Sight]

    def look(self) -> dict[str, Sight]:
        return {host.name: look_at(host) for host in self.lab.hosts}

    def look_at_files(self) -> dict[str, Sight]:
        places = ("/root", "/tmp", "/dev/shm")
        return {host.name: look_at(host, places, [*self.prune, OTHERS]) for host in self.lab.hosts}

    def new(self) -> list[str]:
        return [f"{name}: {item}" for name, seen in self.look().items() for item in seen.new_since(self.before[name])]

    def status(self, exits: int) -> Any:
        return self.operator("status", "-c", self.config, "--json", exits=exits).json


@pytest.fixture(scope="module")
def cluster(
    make_lab: Callable[..., Lab], node_env: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Two hosts; on the first, other people's work: a Ray cluster and a Python program of the same user."""
    mounts = [*build.mounts(node_env), tiny_model]
    lab = make_lab(hosts=2, gpus=1, mounts=mounts)
    desk = tmp_path_factory.mktemp("desk")
    operator = Operator(desk, lab.inventory(desk / "hosts.yaml", venv=str(node_env)))
    config = tiny.write(desk / f"{NAME}.yaml", tiny_model, port=PORT, gpus=2, flags={"tensor-parallel-size": 2})
    work = Cluster(lab, operator, config, node_env, [str(mount) for mount in mounts], {}, {})
    work.files_before = work.look_at_files()
    start_other_work(lab.hosts[0], node_env)
    assert eventually(lambda: set(OTHER_RAY_PORTS) <= look_at(lab.hosts[0]).ports, within=60, every=0.5)
    work.before = work.look()
    yield work
    for running in operator.started:
        running.abandon()


def start_other_work(host: Host, node_env: Path) -> None:
    environment = f"HOME={OTHERS} TMPDIR={OTHERS} RAY_AUTH_MODE=disabled"
    head = f"{node_env}/bin/ray start --head --port={OTHER_RAY_PORT} --node-ip-address={host.address} {OTHER_RAY_FLAGS}"
    host.ssh(f"mkdir {OTHERS}; env {environment} {head} >{OTHERS}/ray.log 2>&1 </dev/null", timeout=120)
    host.ssh(f"nohup python3 -c 'import time; time.sleep(3600)' >{OTHERS}/python.log 2>&1 </dev/null &")


def ray_of_others(cluster: Cluster) -> str:
    host = cluster.lab.hosts[0]
    ask = f"{cluster.node_env}/bin/ray status --address={host.address}:{OTHER_RAY_PORT}"
    return host.run(ask, env={"HOME": OTHERS, "RAY_AUTH_MODE": "disabled"}).stdout


@pytest.fixture(scope="module")
def ran(cluster: Cluster) -> Result:
    return cluster.operator.start("run", "-c", cluster.config).end(0, within=READY_SECONDS)


@pytest.fixture(scope="module")
def processes(cluster: Cluster, ran: Result) -> list[Any]:
    """Provide the deployment's processes while it served."""
    return cluster.lab.processes(NAME)


@pytest.fixture(scope="module")
def after_a_worker_died(cluster: Cluster, processes: list[Any]) -> dict[str, Any]:
    """Return the status after the rank on the second host was killed."""
    (rank,) = [process for process in processes if process.host == "node2" and "RayWorkerProc" in process.command]
    cluster.lab.hosts[1].run(["kill", "-9", str(rank.pid)])
    status: dict[str, Any] = cluster.status(exits=1)
    return status


@pytest.fixture(scope="module")
def stopped(cluster: Cluster, after_a_worker_died: object) -> Result:
    return cluster.operator.start("stop", "--name", NAME).end(0, within=120)


@pytest.fixture(scope="module")
def cleaned(cluster: Cluster, stopped: Result) -> Result:
    return cluster.operator("cleanup", "--name", NAME)


def test_the_printed_curl_line_brings_a_chat_completion(ran: Result) -> None:
    line = re.search(r"^curl (?:.*\\\n)*.*$", ran.out, re.MULTILINE)
    assert line is not None, ran.out
    pasted = subprocess.run(
        ["bash", "-c", line.group()], capture_output=True, text=True, timeout=120, env={"PATH": "/usr/bin:/bin"}
    )
    answer = json.loads(pasted.stdout)
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["content"]
    assert answer["usage"]["completion_tokens"] >= 4


def test_status_says_ready_with_both_hosts_ray_nodes_and_the_instance(cluster: Cluster, ran: Result) -> None:
    status = cluster.status(exits=0)
    assert status["state"] == "ready"
    assert [(host["host"], host["state"], host["gpus"]) for host in status["hosts"]] == [
        ("node1", "running", [0]),
        ("node2", "running", [0]),
    ]
    assert status["ray"]["nodes"] == {host.address: 1.0 for host in cluster.lab.hosts}
    assert status["ray"]["missing"] == []
    (instance,) = status["instances"]
    assert (instance["state"], instance["hosts"], instance["driver"]) == ("ready", ["node1", "node2"], "node1")
    assert instance["endpoint"] == f"http://{cluster.lab.hosts[0].address}:{PORT}/v1"


def test_call_prints_the_text(cluster: Cluster, ran: Result) -> None:
    words = ("call", "Say something.", "-c", cluster.config, "--max-tokens", "8")
    answer = cluster.operator(*words, "--json").json
    assert answer["usage"]["completion_tokens"] == 8
    assert cluster.operator(*words).out == answer["choices"][0]["message"]["content"] + "\n"


@pytest.mark.parametrize("credentials", [{}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}])
def test_ray_refuses_a_client_without_the_token(cluster: Cluster, ran: Result, credentials: dict[str, str]) -> None:
    ray = json.loads((cluster.operator.run_folder() / "plan.json").read_text())["ray"]
    host = cluster.lab.hosts[0]
    ask = [f"{cluster.node_env}/bin/python", "-c", CONNECT, f"{host.address}:{ray['port']}"]
    environment = {"HOME": OTHERS, "TMPDIR": OTHERS, "RAY_NUM_REDIS_GET_RETRIES": "1", **credentials}
    refused = host.run(ask, check=False, env=environment)
    assert refused.returncode == 1
    assert "InvalidAuthToken" in refused.stderr + refused.stdout or "AuthenticationError" in refused.stderr


def test_gpus_of_a_running_deployment_are_not_given_to_another(cluster: Cluster, ran: Result) -> None:
    refused = plan_another(cluster, exits=7)
    assert f"deployment {NAME}" in refused.err


def test_run_again_finds_it_running(cluster: Cluster, processes: list[Any]) -> None:
    again = cluster.operator("run", "-c", cluster.config)
    assert f"{NAME} runs already" in again.out
    assert set(processes) <= set(cluster.lab.processes(NAME))


def test_logs_shows_the_last_lines_of_the_engine(cluster: Cluster, ran: Result) -> None:
    shown = cluster.operator("logs", "-c", cluster.config, "--tail", "5").out.splitlines()
    engine = [line for line in shown if "vllm_serve" in line]
    assert len(engine) == 5
    assert all(line.startswith("node1 ") for line in engine)
    assert any("HTTP/1.1" in line or "INFO" in line for line in engine)


def test_collected_logs_are_those_of_engine_and_ray_on_both_hosts(
    cluster: Cluster, ran: Result, tmp_path: Path
) -> None:
    output = cluster.operator("logs", "-c", cluster.config, "-o", tmp_path / "collected").said
    files = {host: [path for path in (tmp_path / "collected" / host).rglob("*") if path.is_file()] for host in
             ("node1", "node2")}  # fmt: skip
    names = {host: {path.name for path in paths} for host, paths in files.items()}
    (engine,) = [file for file in files["node1"] if file.name.startswith("vllm_serve") and file.suffix == ".log"]
    assert "Application startup complete" in engine.read_text()
    assert "ray_head.log" in names["node1"]
    assert "ray_worker.log" in names["node2"]
    for host, paths in files.items():
        assert {"raylet.out", "raylet.err"} <= names[host]
        assert {path.suffix for path in paths if WORKER_LOG.fullmatch(path.name)} == {".out", ".err"}
        assert host in output
        assert str(len(paths)) in output


def test_status_is_not_ready_once_a_rank_has_died(after_a_worker_died: dict[str, Any]) -> None:
    assert after_a_worker_died["state"] in {"unwell", "starting", "dead"}
    assert [instance["state"] for instance in after_a_worker_died["instances"]] != ["ready"]


def test_stop_leaves_no_process_and_no_port(cluster: Cluster, processes: list[Any], stopped: Result) -> None:
    assert len(processes) > 10
    kept = [left for left in cluster.lab.leftovers(NAME, processes) if left.kind != "directory"]
    assert kept == []
    assert eventually(lambda: not cluster.new()), cluster.new()  # the operator's SSH sessions end a moment later


def test_stop_gives_gpus_and_ports_back(cluster: Cluster, stopped: Result) -> None:
    plan = plan_another(cluster, exits=0).json
    assert plan["instances"][0]["gpus"] == {"node1": [0], "node2": [0]}


def test_stop_keeps_the_logs(cluster: Cluster, stopped: Result) -> None:
    shown = cluster.operator("logs", "-c", cluster.config, "--tail", "5").out
    assert "vllm_serve" in shown


def test_other_peoples_work_lives_on(cluster: Cluster, cleaned: Result) -> None:
    gone = {name: cluster.before[name].processes - seen.processes for name, seen in cluster.look().items()}
    assert gone == {"node1": frozenset(), "node2": frozenset()}
    assert any("time.sleep(3600)" in process.command for process in cluster.before["node1"].processes)
    assert "1 node_" in ray_of_others(cluster)


def test_cleanup_leaves_the_hosts_as_they_were(cluster: Cluster, cleaned: Result) -> None:
    left = {
        name: sorted(path for path in seen.files - cluster.files_before[name].files if not CACHES.fullmatch(path))
        for name, seen in cluster.look_at_files().items()
    }
    assert left == {"node1": [], "node2": []}


def plan_another(cluster: Cluster, exits: int) -> Result:
    elsewhere = f"model_args.vllm_model.port={PORT + 1}"
    return cluster.operator("plan", "-c", cluster.config, "--name", "another", "--json", elsewhere, exits=exits)
