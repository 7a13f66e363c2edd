"""Groups of ranks in ways that CI has no time for: pipeline and expert parallel, losses while loading.

`make faults` runs them.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.groups import PORT, WORKER, WORKERS, Groups, ranks
from tests.environments import build
from tests.lab import Lab
from tests.lab.product.operator import Operator, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.lab, pytest.mark.timeout(900)]

STAGES = {"pipeline-parallel-size": 2, "worker-cls": WORKER}
EXPERTS = {"data-parallel-size": 2, "enable-expert-parallel": True, "worker-cls": WORKER}
LOADING = "initializing the engine"
STREAM = '{"model": "tiny", "prompt": "Go on", "max_tokens": 480, "ignore_eos": true, "stream": true}'


@pytest.fixture(scope="module")
def tiny_moe(node_env: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("moe")
    program = Path(__file__).with_name("tiny_moe.py")
    subprocess.run([node_env / "bin/python", "-W", "ignore", program, tiny_model, folder], check=True)
    return folder


@pytest.fixture(scope="module")
def groups(
    make_lab: Callable[..., Lab],
    node_env: Path,
    tiny_model: Path,
    tiny_moe: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Groups]:
    lab = make_lab(hosts=2, gpus=1, mounts=[*build.mounts(node_env), tiny_model, tiny_moe, WORKERS])
    desk = tmp_path_factory.mktemp("desk")
    operator = Operator(desk, lab.inventory(desk / "hosts.yaml", venv=str(node_env)))
    yield Groups(lab, operator, tiny_model)
    for running in operator.started:
        running.abandon()


def stream(groups: Groups) -> subprocess.Popen[bytes]:
    """Start a request whose answer comes in many pieces, and wait until the first has come."""
    url, path = f"http://{groups.head.address}:{PORT}/v1/completions", groups.operator.directory / "stream.txt"
    request = ["curl", "-sN", url, "-H", "Content-Type: application/json", "-d", STREAM, "-o", str(path)]
    path.unlink(missing_ok=True)  # of an earlier request
    asked = subprocess.Popen(request)
    assert eventually(lambda: path.exists() and path.read_bytes().startswith(b"data: "))
    return asked


def test_a_pipeline_answers_and_its_follower_does_not_outlive_its_head(groups: Groups) -> None:
    groups.run("stages", STAGES)
    answer = groups.operator("call", "Say something.", "--name", "stages", "--max-tokens", "8", "--json").json
    assert answer["usage"]["completion_tokens"] == 8
    groups.kill(groups.head, "stages")
    _, instance = groups.status("stages", exits=1)
    assert (instance["state"], ranks(instance)[1]) == ("dead", ("follower", "node2", "running"))
    assert groups.stop("stages") == []


def test_a_head_with_an_open_stream_is_stopped_at_the_deadline(groups: Groups) -> None:
    groups.run("tensor", {"tensor-parallel-size": 2})
    asked = stream(groups)
    assert groups.stop("tensor") == []
    asked.wait(60)


def test_expert_parallel_ranks_of_both_hosts_answer(groups: Groups, tiny_moe: Path) -> None:
    groups.run("experts", EXPERTS, tiny_moe)
    assert groups.ask_often(8) == [4] * 8
    assert set(groups.served_by()) == {"0", "1"}
    assert groups.stop("experts") == []


def test_a_data_parallel_rank_that_is_gone_is_named_although_health_is_200(groups: Groups) -> None:
    groups.run("data", {"data-parallel-size": 2})
    groups.kill(groups.other, "data")
    _, instance = groups.status("data", exits=1)
    assert (instance["state"], ranks(instance)) == (
        "unwell", [("driver", "node1", "unwell"), ("follower", "node2", "dead")],
    )  # fmt: skip
    assert "rank 1 on node2: its process is gone" in instance["problem"]
    assert "data-parallel rank 1 on node2: no answer" in instance["problem"]
    assert groups.stop("data") == []


def test_a_group_whose_follower_was_cut_off_for_long_is_restarted_when_it_is_back(groups: Groups) -> None:
    """The driver's own engine waits for it for 300 s; the supervisors do not."""
    words = "deploy.restart.policy=on-failure", "deploy.restart.backoff=1", "deploy.restart.lost=20"
    groups.run("tensor", {"tensor-parallel-size": 2}, words=words)
    groups.other.cut()
    try:
        assert eventually(
            lambda: "waiting for node2 (silent" in groups.status("tensor", exits=None)[1]["problem"], within=120
        )
    finally:
        groups.other.join()
    assert eventually(lambda: groups.status("tensor", exits=None)[1]["state"] == "ready", within=240)
    assert groups.ask_often(2) == [4, 4]
    assert groups.stop("tensor") == []


@pytest.mark.parametrize(("executor", "title"), [("mp", "VLLM::Worker"), ("ray", "ray::RayWorker")])
def test_a_worker_that_stands_still_while_requests_run_restarts_its_group(
    groups: Groups, executor: str, title: str
) -> None:
    name = f"hung-{executor}"
    hang = "deploy.restart.policy=on-failure", "deploy.restart.backoff=1", "deploy.restart.hang=20"
    groups.run(name, {"tensor-parallel-size": 2}, words=(*hang, f"deploy.executor={executor}"))
    worker = next(
        process for process in groups.lab.processes(name) if process.host == "node2" and title in process.command
    )
    asked = stream(groups)
    stopped_at = time.monotonic()
    groups.other.run(["kill", "-STOP", str(worker.pid)])
    assert eventually(lambda: groups.status(name, exits=None)[1]["evidence"], within=240, every=1.0)
    noticed = time.monotonic() - stopped_at
    assert eventually(lambda: groups.status(name, exits=None)[1]["state"] == "ready", within=300, every=2.0)
    _, instance = groups.status(name, exits=0)
    assert (instance["restarts"], "no token" in instance["restart_reason"]) == (1, True), instance
    state = groups.head.directory / f"home/.flagscale-deploy/{name}/node1/evidence" / instance["evidence"]
    assert "no token" in (state / "problem.txt").read_text()
    assert noticed >= 20, "not before its time"
    assert groups.ask_often(2) == [4, 4]
    groups.served[name] = groups.lab.processes(name)
    assert groups.stop(name) == []
    asked.wait(60)


def test_a_follower_that_is_killed_while_it_loads_ends_the_run(groups: Groups) -> None:
    run = groups.start("killed", {"tensor-parallel-size": 2})
    run.wait_for(LOADING, within=300)
    groups.kill(groups.other, "killed")
    killed_at = time.time()
    ended = run.end(5, within=120)
    assert run.said_at("vllm_model/0 rank 1 ended") - killed_at < 20
    assert "[node2]" in ended.said
    assert not [left for left in groups.lab.leftovers("killed") if left.kind != "directory"]


def test_a_followers_host_that_is_cut_off_while_it_loads_ends_the_run(groups: Groups) -> None:
    run = groups.start("cut", {"tensor-parallel-size": 2})
    run.wait_for(LOADING, within=300)
    groups.other.cut()
    try:
        ended = run.end(3, within=180)
    finally:
        groups.other.join()
    assert "node2" in ended.err
    assert "not back after 5 s" in ended.said
    assert groups.stop("cut") == []
