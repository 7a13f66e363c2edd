"""Groups of ranks over two real hosts without Ray: tensor parallel by multiprocessing, and data parallel.

One lab for all. Each group goes through its life in the order of the tests; test_groups_at_length.py has the others.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.e2e.groups import Groups, ranks
from tests.lab.product.operator import DEADLINE, Result, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.lab, pytest.mark.timeout(900)]

TENSOR, DATA = "tensor", "data"
REQUESTS = 12
UNASKED = ("--skip-check", "engine-arguments")
"""vLLM's parser on each host, which takes six core-seconds, is asked in other modules and by `make faults`."""
RESTART = ("deploy.restart.policy=on-failure", "deploy.restart.backoff=1", "deploy.restart.lost=20")


@pytest.fixture(scope="module")
def tensor(groups: Groups) -> Result:
    return groups.run(TENSOR, {"tensor-parallel-size": 2}, words=UNASKED)


@pytest.fixture(scope="module")
def cut(groups: Groups, tensor: Result) -> tuple[dict[str, Any], float]:
    """Provide the instance while the follower's host was cut off, and the seconds until `status` had said so."""
    began = time.monotonic()
    groups.other.cut()
    try:
        return groups.status(TENSOR, exits=3)[1], time.monotonic() - began
    finally:
        groups.other.join()


@pytest.fixture(scope="module")
def without_worker(groups: Groups, cut: object) -> Any:
    """Provide the status after the worker on the follower's host was killed."""
    groups.kill(groups.other, TENSOR, "VLLM::Worker")
    return groups.status(TENSOR, exits=1)[0]


@pytest.fixture(scope="module")
def tensor_stopped(groups: Groups, without_worker: object) -> list[Any]:
    return groups.stop(TENSOR)


@pytest.fixture(scope="module")
def data(groups: Groups, tensor_stopped: object) -> Result:
    # One API server imports vLLM; there are as many as ranks otherwise, also in `make faults`.
    return groups.run(DATA, {"data-parallel-size": 2, "api-server-count": 1}, words=(*RESTART, *UNASKED))


def test_a_tensor_parallel_group_answers_without_ray(groups: Groups, tensor: Result) -> None:
    answer = groups.operator("call", "Say something.", "--name", TENSOR, "--max-tokens", "8", "--json").json
    assert answer["usage"]["completion_tokens"] == 8
    assert not [process for process in groups.served[TENSOR] if "ray" in process.command.split("/")[-1]]
    assert len(tensor.out.split("first token came")) == 2


def test_status_shows_the_ranks(groups: Groups, tensor: Result) -> None:
    _, instance = groups.status(TENSOR, exits=0)
    assert (instance["state"], ranks(instance)) == (
        "ready", [("driver", "node1", "ready"), ("follower", "node2", "running")],
    )  # fmt: skip


def test_logs_are_those_of_both_ranks(groups: Groups, tensor: Result) -> None:
    lines = groups.operator("logs", "--name", TENSOR, "--tail", "3").out.splitlines()
    assert {" ".join(line.split()[:2]) for line in lines} == {
        "node1 vllm_serve_vllm_model_0.log", "node2 vllm_serve_vllm_model_0_rank1.log",
    }  # fmt: skip


def test_a_followers_host_that_is_cut_off_is_named(cut: tuple[dict[str, Any], float]) -> None:
    instance, seconds = cut
    assert (instance["state"], ranks(instance)[1]) == ("unwell", ("follower", "node2", "UNKNOWN"))
    assert instance["problem"].startswith("rank 1 on node2: its host cannot be reached: ")
    assert seconds < DEADLINE


def test_a_worker_that_is_killed_is_named_with_rank_and_host(without_worker: Any) -> None:
    """The driver ends soon after, and answers 503 or not at all while it does; the logs tell where it began."""
    (instance,) = without_worker["instances"]
    assert instance["state"] in ("unwell", "dead")
    problems = ("it does not answer", "/health answers 503", "rank 1 on node2: has 0 of 1 ranks")
    assert instance["state"] == "dead" or any(problem in instance["problem"] for problem in problems)
    cause = without_worker["diagnosis"]
    assert (cause["host"], cause["file"]) == ("node2", "vllm_serve_vllm_model_0_rank1.log")
    assert "died unexpectedly" in cause["line"]


def test_stop_leaves_nothing_of_any_rank(groups: Groups, tensor_stopped: list[Any]) -> None:
    assert len({process.host for process in groups.served[TENSOR]}) == 2
    assert tensor_stopped == []


def test_requests_reach_the_data_parallel_ranks_of_both_hosts(groups: Groups, data: Result) -> None:
    assert groups.ask_often(REQUESTS) == [4] * REQUESTS
    served = groups.served_by()
    assert set(served) == {"0", "1"}
    assert min(served.values()) > 1  # each has answered the readiness probe


@pytest.fixture(scope="module")
def healed(groups: Groups, data: Result) -> Any:
    """Provide the status after a data-parallel rank's processes were killed, but for its supervisor, and came back."""
    before = groups.lab.processes(DATA)
    groups.kill(groups.other, DATA, "VLLM::EngineCore")
    seen: list[Any] = []

    def is_restarted() -> bool:
        seen.append(groups.status(DATA, exits=None)[1])
        return bool(seen[-1]["restarts"] == 1 and seen[-1]["state"] == "ready")

    assert eventually(is_restarted, within=240, every=3.0), seen[-1]  # it takes a second of a core
    assert "restarting" in {instance["state"] for instance in seen}
    return before, seen[-1]


def test_a_group_that_loses_a_rank_is_restarted_as_a_whole(groups: Groups, healed: Any) -> None:
    before, instance = healed
    assert ranks(instance) == [("driver", "node1", "ready"), ("follower", "node2", "running")]
    after = {process.pid for process in groups.lab.processes(DATA) if "VLLM::" in process.command}
    assert after
    assert not after & {process.pid for process in before}
    assert groups.ask_often(REQUESTS) == [4] * REQUESTS
    assert set(groups.served_by()) == {"0", "1"}
    log = groups.operator("logs", "--name", DATA, "--grep", "flagscale-deploy").out
    assert "rank 1 on node2 " in log


def test_stop_leaves_nothing_of_a_group_that_was_restarted(groups: Groups, healed: Any) -> None:
    assert groups.stop(DATA) == []
