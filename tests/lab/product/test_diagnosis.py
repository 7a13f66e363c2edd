"""Why it does not work: ranks that die, loads that stand still, what logs say, while a run waits and afterwards."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from tests.lab import Host, Lab
from tests.lab.product.conftest import Serve
from tests.lab.product.operator import Operator, eventually
from tests.lab.product.stand_in import given, is_started

Write = Callable[..., Serve]
CAUSE = "OSError: [Errno 28] No space left on device"
REMEDY = "run `df -h` on the host"


def hanging(serve: Write, *words: str) -> Serve:
    """Three engines on two hosts of two GPUs, that stop loading at once."""
    timeouts = {"connect": 4, "ready": 60, "stop": 2, "stall": 1}
    return serve(models=3, stand_in=",".join(("hangs", *words)), deploy={"ray": "off", "timeouts": timeouts})


def signal_server(host: Host, served: Serve, name: str) -> None:
    host.run(["kill", f"-{name}", str(given(host, served.port)["pid"])])


def test_a_rank_that_dies_on_another_host_is_named_within_seconds_and_ends_the_run(
    lab: Lab, operator: Operator, serve: Write
) -> None:
    served = hanging(serve, "forks")
    running = operator.start("run", "-c", served.config)
    for host in lab.hosts:
        running.wait_for(f"no progress on {host.name}")  # so both hosts are being watched
    other = lab.hosts[1]
    rank = given(other, served.ports[2])["children"][0]
    killed = time.time()
    other.run(["kill", "-9", str(rank)])
    ended = running.end(exits=5)
    assert running.said_at(f"VLLM::EngineCore (process {rank}) is gone") - killed < 30
    assert f"node2: VLLM::EngineCore (process {rank}) ended before the deployment was ready" in ended.err
    assert [left for left in lab.leftovers(served.name) if left.kind != "directory"] == []
    report = json.loads((operator.run_folder() / "report.json").read_text())
    assert (report["verdict"], report["exit_code"]) == ("failed", 5)


def test_a_load_that_stands_still_is_said_and_the_wait_goes_on(lab: Lab, operator: Operator, serve: Write) -> None:
    served = hanging(serve)
    running = operator.start("run", "-c", served.config)
    assert eventually(lambda: all(is_started(*instance) for instance in zip(places(lab), served.ports, strict=True)))
    started = time.time()
    running.wait_for("no log line, no data read, no CPU time used for")
    assert time.time() - started < 30
    host = places(lab)[0]
    running.wait_for("model0/0: no progress")
    log = f"/root/.flagscale-deploy/{served.name}/{host.name}/logs/vllm_serve_model0_0.log"
    host.run(f"echo 'INFO 11-22 10:00:00 [x.py:1] a line' >> {log}")
    running.wait_for("model0/0: it makes progress again")
    running.send(2)
    running.end(exits=130)


def places(lab: Lab) -> tuple[Host, Host, Host]:
    """Where three engines of one GPU each go, on hosts with two."""
    return lab.hosts[0], lab.hosts[0], lab.hosts[1]


def test_the_status_of_a_dead_instance_says_why(lab: Lab, operator: Operator, serve: Write) -> None:
    served = serve(envs={"STAND_IN_ERROR": CAUSE})
    operator("run", "-c", served.config)
    named = ("--name", served.name)
    assert operator("status", *named, "--json").json["diagnosis"] is None
    signal_server(lab.hosts[0], served, "USR1")
    assert eventually(lambda: operator("status", *named, "--json", exits=1).json["state"] == "dead")
    cause_found = operator("status", *named, "--json", exits=1).json["diagnosis"]
    assert (cause_found["host"], cause_found["line"], cause_found["signature"]) == ("node1", CAUSE, "disk-full")
    assert REMEDY in cause_found["remedy"]
    shown = operator("status", *named, exits=1).out
    assert re.search(
        rf"host +node1\n.*\n +line +{re.escape(CAUSE)}\n +cause +a disk is full\n +remedy +{REMEDY}", shown
    )
    operator("stop", *named)


def test_an_engine_that_dies_behind_its_server_is_unwell_and_says_why(
    lab: Lab, operator: Operator, serve: Write
) -> None:
    served = serve(envs={"STAND_IN_ERROR": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"})
    operator("run", "-c", served.config)
    signal_server(lab.hosts[0], served, "USR2")
    named = ("--name", served.name)
    assert eventually(lambda: "unwell" in operator.start("status", *named).end(exits=1).out)
    cause_found = operator("status", *named, "--json", exits=1).json
    assert (cause_found["state"], cause_found["instances"][0]["problem"]) == ("unwell", "/health answers 503")
    assert cause_found["diagnosis"]["signature"] == "gpu-out-of-memory"
    operator("stop", *named)


def test_what_an_engine_has_to_do_is_shown_and_a_full_cache_is_said(operator: Operator, serve: Write) -> None:
    figures = {"vllm:num_requests_running": 2, "vllm:num_requests_waiting": 5, "vllm:kv_cache_usage_perc": 0.25,
               "vllm:generation_tokens_total": 1200}  # fmt: skip
    for used, output in ((0.25, "2 running, 5 waiting, KV cache 25%, 1200 tokens generated"),
                       (0.996, "its KV cache is full (100%), 5 requests waiting")):  # fmt: skip
        metrics = json.dumps({**figures, "vllm:kv_cache_usage_perc": used})
        served = serve(envs={"STAND_IN_METRICS": metrics})
        operator("run", "-c", served.config)
        assert output in " ".join(operator("status", "--name", served.name).out.split())
        cause_found = operator("status", "--name", served.name, "--json").json["instances"][0]
        assert (cause_found["state"], cause_found["metrics"]["kv_cache"]) == ("ready", used)
        operator("stop", "--name", served.name)


def test_logs_are_diagnosed_on_the_hosts_and_on_this_disk(
    lab: Lab, operator: Operator, serve: Write, tmp_path: Path
) -> None:
    served = serve(stand_in="dies", envs={"STAND_IN_ERROR": CAUSE})
    operator("run", "-c", served.config, "--keep-on-failure", exits=5)
    named = ("--name", served.name)
    for words in (named, (*named, "-o", tmp_path / "collected")):
        output = operator("logs", "--diagnose", *words).out
        assert re.search(rf"host +node1\n +file +vllm_serve_model0_0.log\n +line +{re.escape(CAUSE)}", output)
    assert operator("logs", "--diagnose", *named, "--json").json["diagnosis"]["signature"] == "disk-full"
    operator("cleanup", *named)
    assert "nothing in these logs looks like an error" in operator("logs", "--diagnose", *named).out

    log = tmp_path / "collected/node1/logs/vllm_serve_model0_0.log"
    for place, host in (
        (tmp_path / "collected", "node1"),
        (tmp_path / "collected/node1", "node1"),
        (operator.run_folder(), "node1"),
        (log, log.name),
    ):
        cause_found = operator("logs", "--diagnose", "--from", place, "--json").json["diagnosis"]
        assert (cause_found["host"], cause_found["line"], cause_found["file"]) == (host, CAUSE, log.name)
    shutil.rmtree(tmp_path / "collected/node1/logs")
    assert operator("logs", "--diagnose", "--from", tmp_path / "collected", "--json").json["diagnosis"] is None
    operator("logs", "--from", tmp_path / "collected", exits=2)
