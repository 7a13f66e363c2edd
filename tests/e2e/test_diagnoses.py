"""Eleven ways in which serving over several hosts fails, provoked for real: what `run` and `status` say of each.

Real Ray and real vLLM on two hosts; checks that would have seen it before are left out, as a user may leave them out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.bench import PORT, Bench, covered, kill_when_there, processes
from tests.environments import build
from tests.lab import Lab
from tests.lab.keepers import REPOSITORY

pytestmark = [pytest.mark.e2e, pytest.mark.lab, pytest.mark.timeout(600)]

ELSEWHERE = "/tmp/model"
LOADS_SECONDS = 240.0
HANGS_SECONDS = 60.0
"""`status` takes 2 s here, and 14 s where ten others compute; it would wait for a minute and more."""
ONLY_IN = 'case "$0" in *{script}*) {command} ;; esac'
"""Shell that does something in one of our scripts only: before_start is run by the probe as well."""


@pytest.fixture(scope="module")
def bench(
    make_lab: Callable[..., Lab], node_env: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    lab = make_lab(hosts=2, gpus=1, mounts=[*build.mounts(node_env), tiny_model])
    made = Bench(lab, tmp_path_factory.mktemp("desk"), node_env, tiny_model)
    yield made
    for operator in made.operators:
        for running in operator.started:
            running.abandon()


@pytest.fixture(autouse=True)
def nothing_left(bench: Bench) -> Iterator[None]:
    """Remove what the product left behind, so that it does not disturb the next test."""
    yield
    bench.forget()


def only_in(script: str, command: str) -> str:
    return ONLY_IN.format(script=script, command=command)


def test_token_missing_on_one_worker(bench: Bench) -> None:
    removed = only_in("ray_worker", 'rm "$state/secrets/ray_token"')
    failed = bench.fails("token", exits=1, hosts={"node2": {"before_start": removed}})
    failed.blames("node2", "ray-token")


def test_version_mismatch(bench: Bench, tmp_path: Path) -> None:
    """A stand-in for another Ray cluster: on the second host its file with the version says so."""
    (file,) = bench.node_env.glob("lib/python*/site-packages/ray/_version.py")
    worker = bench.hosts[1]
    worker.run(["bash", "-c", """sed 's/^version = .*/version = "2.59.1"/' "$0" >/tmp/version.py""", str(file)])
    with covered(worker, file, "--bind", "/tmp/version.py"):
        failed = bench.fails("version", exits=1)
    failed.blames("node2", "ray-version-mismatch")


def test_unknown_flag(bench: Bench) -> None:
    failed = bench.fails("flag", exits=5, gpus=1, flags={"no-such-flag": 1})
    assert "--no-such-flag" in failed.blames("node1", "unknown-flag")


def test_port_taken(bench: Bench) -> None:
    """By somebody who came after the check, and is left alone."""
    listen = f"import socket, time; held = socket.create_server(('', {PORT})); time.sleep(3600)"
    running = bench.start("port", gpus=1)
    running.wait_for("serve: vllm_serve")
    bench.hosts[0].run(f'setsid python3 -c "{listen}" </dev/null >/dev/null 2>&1 &')
    failed = bench.ended("port", running, exits=5)
    (other,) = processes(bench.hosts[0], "socket.create_server")
    bench.hosts[0].run(["kill", str(other)])
    held = f"vllm_model/0 cannot serve: port {PORT} is held by a process that is not of this deployment"
    assert held in str(failed.answer["error"]), failed.said


def test_model_missing_on_one_host(bench: Bench) -> None:
    bench.hosts[0].run(["ln", "-s", str(bench.model), ELSEWHERE])
    unseen = ("--skip-check", "model-path", "--skip-check", "model-same")
    failed = bench.fails("model", *unseen, exits=5, flags={"model-tag": ELSEWHERE})
    failed.blames("node2", "no-such-model")


def test_worker_killed_while_loading(bench: Bench) -> None:
    running = bench.start("killed")
    running.wait_for("starting workers", within=LOADS_SECONDS)
    kill_when_there(bench.hosts[1], "ray::RayWorkerProc")
    failed = bench.ended("killed", running, exits=5)
    failed.blames("node2", "worker-died")


def test_shared_memory_full(bench: Bench) -> None:
    """By somebody's file: Ray turns to /tmp, vLLM does not."""
    host, shm = bench.hosts[0], Path("/dev/shm")
    with covered(host, shm, "-t", "tmpfs", "-o", "size=256m,mode=1777", "none"):
        host.run(["fallocate", "-l", "200m", str(shm / "others")])
        failed = bench.fails("shm", "--skip-check", "shared-memory", exits=5)
    failed.blames("node1", "shared-memory")


def test_more_gpus_asked_than_ray_has(bench: Bench, tmp_path: Path) -> None:
    """By a script of the user's own, behind the planner's back; vLLM would wait for half an hour."""
    script = (REPOSITORY / "templates/vllm_serve.sh.j2").read_text()
    (tmp_path / "vllm_serve.sh.j2").write_text(
        script.replace("{% endfor %}\n", "{% endfor %} --tensor-parallel-size=4\n")
    )
    failed = bench.fails("gpus", "--templates", tmp_path, exits=5)
    failed.blames("node1", "too-few-gpus")
    assert "it needs 4 GPUs, Ray has 2" in str(failed.answer["error"])


def test_node_ip_of_nobody(bench: Bench) -> None:
    """Ray itself gives up after 30 s, and more where its Python is slow to start."""
    unseen = ("--skip-check", "node-ip", "--skip-check", "data-network")
    wrong = {"node2": {"node_ip": bench.nobody}}
    failed = bench.fails("node-ip", *unseen, exits=1, hosts=wrong, timeouts={"ray": 120})
    failed.blames("node2", "address-not-here")


def test_vllm_host_ip_that_ray_does_not_know(bench: Bench) -> None:
    """The first Ray executor of vLLM puts the driver on the node of this address; the second, its default, does not."""
    env = {"VLLM_HOST_IP": bench.nobody, "VLLM_USE_RAY_V2_EXECUTOR_BACKEND": "0"}
    failed = bench.fails("host-ip", exits=5, hosts={"node1": {"env": env}})
    assert bench.nobody in failed.blames("node1", "ray-node-ip")


def test_head_killed_while_serving(bench: Bench) -> None:
    """Ray's GCS first, which engines outlive for a minute, then the raylet, which takes its workers along."""
    bench.start("serving").end(0, within=LOADS_SECONDS)
    serving = bench.lab.processes("serving")
    kill_when_there(bench.hosts[0], "gcs/gcs_server")
    status, seconds = bench.status("serving")
    assert (status["state"], status["instances"][0]["problem"]) == ("unwell", "Ray's gcs_server is gone on node1")
    assert seconds < HANGS_SECONDS
    kill_when_there(bench.hosts[0], "raylet/raylet")
    status, seconds = bench.status("serving")
    assert status["state"] in {"unwell", "dead"}
    assert status["hosts"][0]["problem"] == "Ray's gcs_server is gone"
    assert seconds < HANGS_SECONDS
    bench.operators[-1].start("stop", "--name", "serving").end(0, within=60)
    assert bench.left("serving", serving) == []
