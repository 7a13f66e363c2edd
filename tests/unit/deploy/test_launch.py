from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

import pytest

from flagscale_deploy.config.spec import TlsSpec
from flagscale_deploy.deploy.launch import Started, StepsFailedError, execute, secret_files, tls_files
from flagscale_deploy.errors import UnreachableError
from flagscale_deploy.inventory.model import Host
from flagscale_deploy.secrets import Secret
from tests.fakes import FakeFleet, Handler, Output
from tests.unit.deploy.given import HOSTS, PLAN, RECORDS, Heard, answering, launched, problems
from tests.unit.plan.given import host, inventory, model, planned, spec

PRIVATE = {"secrets/env": "A='1'\n"}


def run(handler: Handler, heard: Heard | None = None) -> tuple[FakeFleet, list[Started]]:
    fleet = FakeFleet(handler, HOSTS)
    return fleet, execute(PLAN, fleet, RECORDS, dict.fromkeys(PLAN.hosts, PRIVATE), heard or Heard())


def failed(handler: Handler, heard: Heard | None = None) -> StepsFailedError:
    with pytest.raises(StepsFailedError) as raised:
        run(handler, heard)
    return raised.value


def test_steps_run_in_the_order_of_their_stages() -> None:
    fleet, started = run(answering())
    order = [call.args["script"] for call in fleet.sent("launch")]
    assert sorted(order[:3]) == ["ray_head.sh", "ray_nodes.sh", "ray_worker.sh"]
    assert order.index("ray_head.sh") < order.index("ray_nodes.sh")
    assert order[3:] == ["vllm_serve_qwen_0.sh"]
    assert [(script.step.script, script.pid, script.start_ticks, script.log) for script in started] == [
        ("vllm_serve_qwen_0.sh", 100, 7, "/state/logs/vllm_serve_qwen_0.sh.log")
    ]


def test_what_a_host_is_sent() -> None:
    fleet, _ = run(answering())
    for call in fleet.sent("launch"):
        args = call.args
        assert args["deployment"] == "qwen"
        assert args["host"] == call.host
        assert args["run_id"] == PLAN.run_id
        assert args["session"] == PLAN.ray.session
        assert args["record"] == RECORDS[call.host]
        assert args["files"] == {
            **{f"scripts/{name}": [text, "700"] for name, text in PLAN.scripts[call.host].items()},
            "secrets/env": ["A='1'\n", "600"],
        }
    roles = [call.args["role"] for call in fleet.sent("launch")]
    assert sorted(roles) == ["engine", "ray-head", "ray-nodes", "ray-worker"]


def test_head_and_workers_start_at_the_same_time() -> None:
    meeting = threading.Barrier(2)

    def launch(host: Host, args: dict[str, Any]) -> Iterable[Output]:
        if args["script"] in ("ray_head.sh", "ray_worker.sh"):
            meeting.wait(10)
        return launched(host, args)

    run(answering(launch=launch))


def test_nodes_are_counted_while_workers_start_and_engines_wait_for_both() -> None:
    counting = threading.Event()

    def launch(host: Host, args: dict[str, Any]) -> Iterable[Output]:
        if args["script"] == "ray_nodes.sh":
            counting.set()
        if args["script"] == "ray_worker.sh":
            assert counting.wait(10)
        return launched(host, args)

    fleet, _ = run(answering(launch=launch))
    assert fleet.sent("launch")[-1].args["role"] == "engine"


def test_a_failing_worker_ends_the_heads_wait_and_nothing_further_starts() -> None:
    def launch(host: Host, args: dict[str, Any]) -> Iterable[Output]:
        if args["script"] == "ray_worker.sh":
            yield {"log": "/l", "pid": 5, "start_ticks": 1}
            yield {
                "exit_code": 1,
                "tail": ["INFO a", "RuntimeError: Version mismatch: The cluster was started with:", "x"],
            }
        else:
            end = time.monotonic() + 120
            while time.monotonic() < end:
                yield None

    heard = Heard()
    began = time.monotonic()
    error = failed(answering(launch=launch), heard)
    assert time.monotonic() - began < 30
    assert problems(error.errors) == {"gpu02": "ray_worker.sh ended with exit status 1"}
    assert "    gpu02 | RuntimeError: Version mismatch: The cluster was started with:" in error.lines
    assert "gpu02: ray_worker.sh ended" in str(error)
    assert [(event.host, event.state) for event in heard.of("ray-workers")] == [
        ("gpu02", "running"),
        ("gpu02", "failed"),
    ]


def test_every_hosts_error_is_kept() -> None:
    meeting = threading.Barrier(2)

    def launch(host: Host, args: dict[str, Any]) -> Iterable[Output]:
        yield {"log": "/l", "pid": 5, "start_ticks": 1}
        meeting.wait(10)
        yield {"exit_code": 9, "tail": [f"ERROR on {host.name}"]}

    assert {host: error.lines for host, error in failed(answering(launch=launch)).errors.items()} == {
        "gpu01": ("gpu01: ray_head.sh ended with exit status 9", "    gpu01 | ERROR on gpu01"),
        "gpu02": ("gpu02: ray_worker.sh ended with exit status 9", "    gpu02 | ERROR on gpu02"),
    }


def test_a_lost_connection_is_that_hosts_error() -> None:
    def launch(host: Host, args: dict[str, Any]) -> Iterable[Output]:
        if host.name == "gpu02":
            yield UnreachableError("gpu02", "the SSH connection was lost")
        yield from launched(host, args)

    assert isinstance(failed(answering(launch=launch)).errors["gpu02"], UnreachableError)


def test_without_an_error_in_the_log_its_last_lines_are_shown() -> None:
    def launch(_host: Host, _args: dict[str, Any]) -> Iterable[Output]:
        yield {"log": "/l", "pid": 5, "start_ticks": 1}
        yield {"exit_code": 2, "tail": ["one", "two", "three", "four"]}

    assert "exit status 2\n    gpu01 | two\n    gpu01 | three\n    gpu01 | four" in str(
        failed(answering(launch=launch))
    )


@pytest.mark.parametrize("code", [0, 1])
def test_an_engine_that_ends_at_once_has_failed_whatever_its_status(code: int) -> None:
    def launch(host: Host, args: dict[str, Any]) -> Iterable[Output]:
        yield from launched(host, args) if not args["detached"] else (
            {"log": "/l", "pid": 5, "start_ticks": 1}, {"exit_code": code, "tail": ["vllm: not found"]},
        )  # fmt: skip

    assert f"vllm_serve_qwen_0.sh ended with exit status {code}\n    gpu01 | vllm: not found" in str(
        failed(answering(launch=launch))
    )


def test_a_launch_that_says_nothing_is_an_error_and_no_crash() -> None:
    error = failed(answering(launch=lambda _host, _args: [b"Last login: today\n"]))
    assert set(error.errors) <= set(HOSTS)
    assert "without a reply" in str(error)


def test_progress_is_told_by_stage_and_host() -> None:
    heard = Heard()
    run(answering(), heard)
    assert [(event.stage, event.state, event.host) for event in heard.of("ray-nodes")] == [
        ("ray-nodes", "running", "gpu01"), ("ray-nodes", "done", "gpu01"),
    ]  # fmt: skip
    assert heard.of("ray-nodes", "done")[0].elapsed is not None
    assert [event.state for event in heard.of("serve")] == ["running"]  # done is when it has answered


def test_two_engines_on_one_host_start_one_after_another() -> None:
    made = planned(inventory(host("gpu01")), spec(model("a", port=1), model("b", port=2)))
    fleet = FakeFleet(answering(), ["gpu01"])
    scripts = execute(made, fleet, RECORDS, {name: {} for name in made.hosts}, Heard())
    assert [script.step.script for script in scripts] == ["vllm_serve_a_0.sh", "vllm_serve_b_0.sh"]


def test_files_of_tls_travel_as_secrets_do() -> None:
    sent = TlsSpec("tls.crt", "tls.key", sent={"tls.crt": "C", "tls.key": Secret("K")})
    assert tls_files(sent) == {"secrets/tls.crt": "C", "secrets/tls.key": "K"}
    assert tls_files(TlsSpec("/c.pem")) == tls_files(None) == {}


def test_secrets_travel_in_files_that_shell_can_read() -> None:
    files = secret_files({"HF_TOKEN": Secret("it's"), "EMPTY": Secret("")}, Secret("t0ken"))
    assert files == {"secrets/ray_token": "t0ken", "secrets/env": "HF_TOKEN='it'\"'\"'s'\nEMPTY=''\n"}
